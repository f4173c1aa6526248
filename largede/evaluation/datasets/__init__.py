"""Collections by name: what they are, how they come here, and how other formats become BEIR folders."""
