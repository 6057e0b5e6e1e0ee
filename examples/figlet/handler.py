"""Text on standard input, the same in large letters on standard output."""

import sys

from pyfiglet import figlet_format

sys.stdout.write(figlet_format(sys.stdin.read().strip(), width=120))
