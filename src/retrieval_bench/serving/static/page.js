// What the page does beyond links and forms: drop and paste, cropping by hand, thresholds that answer at once, and
// parts of the page in place of the whole. Without this file every step works, by a form and a new page.
"use strict";

document.documentElement.classList.add("scripted");

const working = (text) => { document.getElementById("working").textContent = text; };

// --- a picture, however it comes ---------------------------------------------------------------------------------------

function send(file) {
  const form = document.getElementById("upload");
  if (!form || !file || !(file.type.startsWith("image/") || /\.(heic|heif|jxl|avif|jpe?g|png|webp|tiff?)$/i.test(file.name))) {
    working("That is no picture.");
    return;
  }
  const carrier = new DataTransfer();
  carrier.items.add(file);
  form.querySelector("input[name=file]").files = carrier.files;
  working("Searching…");
  form.requestSubmit();
}

document.addEventListener("dragover", (event) => {
  if (event.dataTransfer && event.dataTransfer.types.includes("Files")) {
    event.preventDefault();
    document.getElementById("upload")?.classList.add("over");
  }
});
document.addEventListener("dragleave", () => document.getElementById("upload")?.classList.remove("over"));
document.addEventListener("drop", (event) => {
  if (event.dataTransfer && event.dataTransfer.files.length && document.getElementById("upload")) {
    event.preventDefault();
    send(event.dataTransfer.files[0]);
  }
});
document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])][0];
  if (file) { event.preventDefault(); send(file); }
});
document.addEventListener("change", (event) => {
  if (event.target.id === "file" && event.target.files.length) { working("Searching…"); event.target.form.requestSubmit(); }
  if (event.target.id === "photo") send(event.target.files[0]);
});

// --- parts of the page in place of the whole ---------------------------------------------------------------------------

let shown = location.pathname + location.search, last = 0;

function go(address, keep) {
  const turn = ++last;
  shown = address;
  working("Searching…");
  htmx.ajax("GET", address, { target: "#main", select: "#main", swap: "outerHTML" }).then(() => {
    if (turn !== last) return;  // another one was asked for meanwhile
    if (!keep) history.pushState({}, "", address);
    working("");
    ready();
  });
}

window.addEventListener("popstate", () => {
  const address = location.pathname + location.search;
  if (address !== shown) go(address, true);  // else only the place in the page is another
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  if (link.classList.contains("why")) {
    event.preventDefault();
    const place = document.getElementById(link.dataset.into);
    if (place.childElementCount) { place.replaceChildren(); link.setAttribute("aria-expanded", "false"); return; }
    place.textContent = "Drawing…";
    htmx.ajax("GET", link.getAttribute("href"), { target: place, swap: "innerHTML" });
    link.setAttribute("aria-expanded", "true");
  } else if (link.pathname === "/" && link.origin === location.origin && location.pathname === "/" && link.search) {
    event.preventDefault();
    go(link.pathname + link.search);
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.id === "controls") {
    event.preventDefault();
    go("/?" + new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== "")));
  } else if (form.classList.contains("judge")) {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(form, event.submitter));
    htmx.ajax("POST", "/judge", { target: form, swap: "outerHTML", values });
  }
});

// --- thresholds ---------------------------------------------------------------------------------------------------------

function moved(slider) {
  const column = slider.closest(".column"), at = Number(slider.value), most = Number(slider.max);
  const steps = JSON.parse(slider.dataset.steps);
  let words = steps[0][1];
  for (const [threshold, text] of steps) { if (threshold <= at + 1e-9) words = text; else break; }
  column.querySelector("output").textContent = String(Number(at.toPrecision(4)));
  document.getElementById(slider.getAttribute("aria-describedby")).textContent = words;
  const hits = [...column.querySelectorAll(".hit")];
  const beyond = hits.map((hit) => at < most && Number(hit.dataset.distance) > at);
  hits.forEach((hit, place) => hit.classList.toggle("beyond", beyond[place]));
  column.querySelector(".none").hidden = !(hits.length && beyond.every(Boolean));
}

document.addEventListener("input", (event) => { if (event.target.type === "range") moved(event.target); });
document.addEventListener("change", (event) => {
  if (event.target.type === "range") {  // so that the address, which others may be sent, knows of it
    const address = new URLSearchParams(location.search);
    if (event.target.value === event.target.max) address.delete(event.target.name);
    else address.set(event.target.name, event.target.value);
    shown = "/?" + address;
    history.replaceState({}, "", shown);
  } else if (event.target.form?.id === "controls") event.target.form.requestSubmit();
});

// --- crop ---------------------------------------------------------------------------------------------------------------

function cropping(place) {
  const image = place.querySelector("img");
  if (!image || place.querySelector("canvas")) return;
  const turn = Number(place.dataset.turn), canvas = document.createElement("canvas");
  let box = place.dataset.crop ? place.dataset.crop.split(",").map(Number) : null, from = null;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", "The part to search for: arrow keys move it, with Shift they change its size, Enter searches");
  canvas.setAttribute("aria-describedby", "crop-help");

  const draw = () => {
    const pen = canvas.getContext("2d"), { naturalWidth: w, naturalHeight: h } = image;
    [canvas.width, canvas.height] = turn % 180 ? [h, w] : [w, h];
    pen.translate(canvas.width / 2, canvas.height / 2);
    pen.rotate(turn * Math.PI / 180);
    pen.drawImage(image, -w / 2, -h / 2);
    pen.setTransform(1, 0, 0, 1, 0, 0);
    if (box) {
      const [l, t, r, b] = box, W = canvas.width, H = canvas.height;
      pen.fillStyle = "rgba(10,14,20,.58)";
      pen.beginPath();
      pen.rect(0, 0, W, H);
      pen.rect(l * W, t * H, (r - l) * W, (b - t) * H);
      pen.fill("evenodd");
      pen.strokeStyle = "#fff";
      pen.lineWidth = Math.max(2, W / 200);
      pen.strokeRect(l * W, t * H, (r - l) * W, (b - t) * H);
    }
  };
  const at = (event) => {
    const area = canvas.getBoundingClientRect();
    return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height].map((x) => Math.min(1, Math.max(0, x)));
  };
  const search = () => {
    const address = new URLSearchParams(location.search);
    if (box) address.set("crop", box.map((x) => x.toFixed(4)).join(",")); else address.delete("crop");
    go("/?" + address);
  };
  canvas.addEventListener("pointerdown", (event) => { from = at(event); canvas.setPointerCapture(event.pointerId); event.preventDefault(); });
  canvas.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = at(event);
    box = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
    draw();
  });
  canvas.addEventListener("pointerup", () => {
    if (!from) return;
    from = null;
    if (box && (box[2] - box[0] < 0.03 || box[3] - box[1] < 0.03)) box = null;
    search();
  });
  canvas.addEventListener("keydown", (event) => {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (event.key === "Enter") { event.preventDefault(); search(); return; }
    if (!x && !y) return;
    event.preventDefault();
    box = box ?? [0.2, 0.2, 0.8, 0.8];
    let [l, t, r, b] = box;
    const step = 0.02;
    if (event.shiftKey) { r = Math.min(1, Math.max(l + 0.05, r + x * step)); b = Math.min(1, Math.max(t + 0.05, b + y * step)); }
    else {
      const dx = Math.min(1 - r, Math.max(-l, x * step)), dy = Math.min(1 - b, Math.max(-t, y * step));
      [l, t, r, b] = [l + dx, t + dy, r + dx, b + dy];
    }
    box = [l, t, r, b];
    draw();
  });
  const begin = () => { draw(); place.replaceChildren(canvas); place.className = "crop"; };
  if (image.complete && image.naturalWidth) begin(); else image.addEventListener("load", begin);
}

function ready() {
  const place = document.getElementById("crop");
  if (place) cropping(place);
}

ready();
