package codec

import "testing"

func TestSetIRQs(t *testing.T) {
	const none, boolean, eventfd = IRQSetDataNone, IRQSetDataBool, IRQSetDataEventfd
	const mask, unmask, trigger = IRQSetActionMask, IRQSetActionUnmask, IRQSetActionTrigger
	for _, tt := range []struct {
		name         string
		flags        IRQSetFlags
		start, count uint32
		data         string
		kind         error
	}{
		{"disable the index", none | trigger, 0, 0, "", nil},
		{"trigger", none | trigger, 3, 2, "", nil},
		{"unmask", none | unmask, 0, 1, "", nil},
		{"mask where true", boolean | mask, 0, 3, "\x01\x00\x01", nil},
		{"eventfds", eventfd | trigger, 0, 16, "", nil},
		{"eventfds to be told of unmasking", eventfd | unmask, 0, 1, "", nil},
		{"no data flag", trigger, 0, 1, "", ErrFlags},
		{"two data flags", none | eventfd | trigger, 0, 1, "", ErrFlags},
		{"no action", eventfd, 0, 1, "", ErrFlags},
		{"two actions", none | mask | unmask, 0, 1, "", ErrFlags},
		{"unknown flag", none | trigger | 1<<6, 0, 1, "", ErrFlags},
		{"count 0 with a start", none | trigger, 1, 0, "", ErrRange},
		{"count 0 with eventfds", eventfd | trigger, 0, 0, "", ErrRange},
		{"count 0 to mask", none | mask, 0, 0, "", ErrRange},
		{"range that overflows", none | trigger, ^uint32(0), 1, "", ErrRange},
		{"the largest range", none | trigger, 1, ^uint32(0) - 1, "", nil},
		{"too few booleans", boolean | trigger, 0, 3, "\x01\x01", ErrSize},
		{"too many booleans", boolean | trigger, 0, 3, "\x01\x01\x01\x01", ErrSize},
		{"booleans by the billion", boolean | trigger, 0, ^uint32(0), "", ErrSize},
		{"trailing bytes without meaning", none | trigger, 0, 1, "more", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := SetIRQs{Data: []byte("left from before")}
			err := m.Decode(pack(uint32(20), uint32(tt.flags), uint32(2), tt.start, tt.count, tt.data))
			wantError(t, err, CmdSetIRQs, tt.kind)
			if m.Flags != tt.flags || m.Index != 2 || m.Start != tt.start || m.Count != tt.count {
				t.Errorf("got %+v", m)
			}
			if want := tt.data; err == nil && tt.flags&boolean != 0 && string(m.Data) != want {
				t.Errorf("data % x, want % x", m.Data, want)
			}
			if tt.flags&boolean == 0 && m.Data != nil {
				t.Errorf("data % x, want none", m.Data)
			}
		})
	}
	t.Run("argsz smaller than the structure", func(t *testing.T) {
		b := pack(uint32(19), uint32(none|trigger), uint32(0), uint32(0), uint32(0))
		wantError(t, new(SetIRQs).Decode(b), CmdSetIRQs, ErrSize)
	})
}
