package client

import (
	"sync/atomic"
	"testing"

	"vfiouser/codec"
)

// What undoes a migration asks of interrupts that are known, however many the devices claim to have.
func TestUndoOfAMigrationWithManyInterrupts(t *testing.T) {
	var disabled atomic.Int32
	d := attach(t, func(s *server) {
		s.Reply(s.Want(codec.CmdReset), nil)
		m := s.Want(codec.CmdSetIRQs)
		var set codec.SetIRQs
		if err := set.Decode(m.Payload); err == nil && set.Index == IRQMSIX && set.Count == 0 {
			disabled.Add(1)
		}
		s.Reply(m, nil)
		m = s.Want(codec.CmdDMAUnmap)
		s.Reply(m, m.Payload)
	})
	d.info.NumIRQs = 1<<32 - 1
	d.info.Flags |= codec.DeviceFlagReset
	kept := &keeper{fds: map[keptIRQ]int{{IRQMSIX, codec.IRQSetActionTrigger, 0}: -1, {IRQMSIX, codec.IRQSetActionTrigger, 1}: -1},
		masked: map[keptIRQ]bool{{index: IRQMSIX}: true}}
	m := move{src: &Device{keep: kept}, dst: d}
	if err := m.clear(testContext(t)); err != nil || disabled.Load() != 1 {
		t.Errorf("%v, %d indexes were disabled", err, disabled.Load())
	}
}
