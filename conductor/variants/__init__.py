"""The kinds of conductor, one file each; ``conductor.network.VARIANTS`` finds them."""
