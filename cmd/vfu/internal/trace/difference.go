package trace

import (
	"fmt"
	"slices"
	"time"

	"vfiouser/codec"
)

// Difference is where a server does not do what the recorded one did.
type Difference struct {
	Session       int
	At            time.Duration // since the recorded session began
	Recorded, Got string
}

func (d *Difference) Error() string {
	return fmt.Sprintf("first difference, session %d, %v after its beginning:\n  recorded: %s\n  got:      %s",
		d.Session, d.At.Round(time.Microsecond), d.Recorded, d.Got)
}

// same compares what must be the same, which the id of the server's command need not be.
func same(a, b *message) bool {
	ha, hb := a.header, b.header
	if !ha.IsError() || !hb.IsError() {
		ha.Errno, hb.Errno = 0, 0
	}
	return ha.Command == hb.Command && ha.Flags == hb.Flags && ha.Errno == hb.Errno &&
		string(a.bytes[codec.HeaderSize:]) == string(b.bytes[codec.HeaderSize:]) &&
		slices.Equal(a.descriptors(), b.descriptors())
}

// replyDiffers says where replies differ if their texts may not show it.
func (p *player) replyDiffers(want, got *message) error {
	wants, gots := describe(want), describe(got)
	if i := firstDifference(want.bytes, got.bytes); i >= codec.HeaderSize && want.header.Size == got.header.Size {
		gots += fmt.Sprintf(", byte %d of the payload is %#02x instead of %#02x", i-codec.HeaderSize, got.bytes[i], want.bytes[i])
	}
	return p.differs(wants, gots)
}

func describe(m *message) string {
	if all := m.descriptors(); len(all) > 0 {
		return fmt.Sprintf("%s %v", m.text(), all)
	}
	return m.text()
}

// firstDifference is -1 if there is none in what both have.
func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func (p *player) differs(recorded, got string) error {
	return &Difference{p.script.session, p.now.Sub(p.begin), recorded, got}
}
