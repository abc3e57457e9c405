"""How well recall finds what is meant: adapters that feed a whole bus with other people's questions and answers."""
