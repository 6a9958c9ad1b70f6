package engine

import (
	"testing"

	"vfiouser/codec"
)

// What a client does all the time must not allocate: decode, dispatch, encode.
func TestDispatchAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b := newBed(t, Config{})
	conn := b.attach()
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"REGION_READ", conn.frame(codec.CmdRegionRead, 0, regionRead(0, 0, 4))},
		{"REGION_WRITE", conn.frame(codec.CmdRegionWrite, 0, regionWrite(0, 0, 1, 2, 3, 4))},
		{"posted REGION_WRITE", conn.frame(codec.CmdRegionWrite, codec.FlagNoReply, regionWrite(0, 0, 1, 2, 3, 4))},
		{"REGION_WRITE_MULTI", conn.frame(codec.CmdRegionWriteMulti, 0, writeMultiOf(writeOf(0, 0, 1), writeOf(0, 1, 2)))},
	} {
		t.Run(c.name, func(t *testing.T) {
			var n float64
			err := b.engine.reactor.Do(func() {
				s := b.ep.session
				n = testing.AllocsPerRun(1000, func() {
					s.turn = turn{}
					s.consume(c.frame)
					s.out.release()
				})
			})
			if err != nil || n != 0 {
				t.Errorf("%v allocations for each message, %v", n, err)
			}
		})
	}
}
