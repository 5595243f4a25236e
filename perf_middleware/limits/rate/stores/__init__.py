"""Where the due times of buckets are kept, each behind one atomic step: `take`.

MemoryQuotas   this process's, synchronous
SharedQuotas   in Redis, for all processes; raises while it is away
FleetQuotas    the shared ones, and what holds instead while Redis is away; never raises for it
"""
