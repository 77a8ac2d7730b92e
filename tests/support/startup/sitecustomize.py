"""For the programs that tests start: garbage is collected seldom.

While a proxy imports its thousands of modules, which stay, Python would look at all of them again and again:
a third of the time that the start takes. Python imports this by itself where the folder is on its path.
"""

import gc

gc.set_threshold(1_000_000)
