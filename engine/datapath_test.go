package engine

import (
	"testing"

	"vfiouser/codec"
)

// A device that panics when its data path is to hold still does not keep its endpoint from
// the next client, whether it had answered before or not.
func TestDevicePanicInLockDataPathCostsTheSessionOnly(t *testing.T) {
	for name, first := range map[string]func(done func()){
		"without an answer":     func(func()) {},
		"after having answered": func(done func()) { done() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, Config{})
			conn := b.attach()
			b.do(func() {
				b.device.hold = func(done func()) {
					first(done)
					panic("device: defect")
				}
			})
			conn.write(conn.frame(codec.CmdReset, 0, nil))
			conn.ends()
			b.settled()
			b.do(func() { b.device.hold = nil })
			b.attach().ok(codec.CmdReset, nil)
		})
	}
}
