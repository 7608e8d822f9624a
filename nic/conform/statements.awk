# SPDX-License-Identifier: BSD-3-Clause
# The numbered rules of the documents, as rows of a C++ table: the documents are
# where they are written, and the only place.
BEGIN { FS = " \\| " }
/^\| [WM][0-9]+ \|/ {
  sub(/^\| /, "", $1)
  printf "{\"%s\", R\"rule(%s)rule\"},\n", $1, $2
}
