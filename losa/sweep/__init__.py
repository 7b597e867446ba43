"""Many settings of a side network on one store: which to try, who trains them, which is best.

The truth is one create-once file a trial; everything else is derived from those.
"""
