"""Parameters of the parts of the tiny model of conftest.py: 2 blocks of 2 head groups and 64 channels, 32 wide."""

HEAD_GROUP = (2 + 1 + 1 + 2) * 8 * 32  # rows of q, k and v, columns of o
CHANNEL = 3 * 32
BLOCK = 2 * HEAD_GROUP + 64 * CHANNEL + 2 * 32
