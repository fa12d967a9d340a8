"""Floor 11: a person asks to be forgotten, and every slice below lets go of what names them."""
