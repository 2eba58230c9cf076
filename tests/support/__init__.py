"""What several tests share: small datasets, images, records and extractors made on the spot. No test lives here."""
