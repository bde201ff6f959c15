"""Tables of any form as a source: a layout says where members and tables are, and how a row becomes a clip."""
