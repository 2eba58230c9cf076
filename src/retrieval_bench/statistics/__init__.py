"""How sure a number is: intervals of means, differences of paired means, and which methods cannot be told apart."""
