"""Who a device is: keys, the private certificate authority of a fleet, enrolment, and TLS that both ends prove.

Nothing here is imported before somebody needs it: ``cryptography`` is in the extra ``identity``.
"""
