package nvme

import "sync/atomic"

// settled reads a counter after all that was read before. The processor keeps loads in order.
func settled(c *atomic.Uint32) uint32 { return c.Load() }
