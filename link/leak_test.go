package link_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"vfiouser/link"
	"vfiouser/link/vnet"
)

// descriptors are those that the process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// Links, ports and connections leave no descriptor behind, also if they are refused.
func TestLinksLeaveNoDescriptor(t *testing.T) {
	inNamespace(t)
	s := newSet(t)
	path := filepath.Join(t.TempDir(), "net.sock")
	use := func(spec string, meanwhile func(*sink)) {
		l, err := s.Open(spec)
		must(t, err)
		for range 2 {
			card := &sink{carrier: make(chan bool, 100)}
			port, err := l.Attach(card)
			must(t, err)
			port.SetOffloads(vnet.OffloadAll, 2)
			if _, err := l.Attach(&sink{}); err != link.ErrBusy {
				t.Errorf("%s: the second card got %v", spec, err)
			}
			meanwhile(card)
			must(t, port.Close())
		}
		must(t, l.Close())
		must(t, l.Close())
	}
	round := func() {
		use("tap:vt0,queues=3,up=on", func(*sink) {})
		use("stream:unix=/nowhere", func(*sink) {})
		use("stream:unix="+path+",server=on", func(card *sink) {
			conn, err := net.Dial("unix", path)
			must(t, err)
			defer conn.Close()
			for !<-card.carrier {
			}
		})
		for _, spec := range []string{"tap:lo", "tap:vt0,queues=300", "stream:unix=/no/where,server=on"} {
			if l, err := s.Open(spec); err == nil {
				t.Errorf("%s was opened", spec)
				must(t, l.Close())
			}
		}
	}
	round() // the runtime opens some of its own
	before := descriptors(t)
	round()
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d before", after, before)
	}
}
