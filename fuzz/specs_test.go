package fuzz

import (
	"errors"
	"strings"
	"testing"

	"vfiouser/block"
	"vfiouser/link"
)

// FuzzSpecs are texts that name backends, filters and links. What is refused is an error that says
// of what; what is not is made, if it touches nothing outside of this process.
//
//fuzz:covers block/open.go block/filters.go block/settings.go block/nbdaddress.go link/open.go link/args.go link/faults.go link/streamaddr.go
func FuzzSpecs(f *testing.F) {
	for _, spec := range []string{
		"mem:1M", "null:512", "mem:1T", "null:8E", "mem:18446744073709551615", "file:/x,direct,engine=uring", "file:a,b,engine=auto",
		"nbd://host:1/disk?connections=2&timeout=5s", "nbd+unix:///x?socket=/y", "nbd:nbd://[::1]:2/my%20disk",
		"delay:2ms,error:read:1%,null:1G", "volatile,mem:1M", "volatile:seed=7,mem:4096", "rate:10M,null:1G", "log,null:1G", "delay:read:1ms+1ms,mem:1K",
		"loop", "null", "switch:lan", "tap:vt%d,queues=2,up=on", "tap:fd=99", "stream:tcp=host:80,server=on", "stream:unix=@x,reconnect=5s",
		"pcap:/f,snap=60,loss:1%,delay:2ms,loop", "loss:0.5%,null", "delay:20ms+5ms,loop", "rate:100M,duplicate:1%,reorder:1%,switch:a",
	} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		if len(spec) > 4096 {
			return
		}
		err := block.Check(spec)
		if open := (*block.OpenError)(nil); err != nil && (!errors.As(err, &open) || !errors.Is(err, block.ErrSpec) || err.Error() == "") {
			t.Fatalf("%q as a backend: %v", spec, err)
		}
		if err == nil && strings.HasSuffix(spec, ",null:1G") {
			b, err := block.Open(spec)
			if err != nil {
				t.Fatalf("%q is right, and does not open: %v", spec, err)
			}
			if b.Size() != 1<<30 {
				t.Errorf("%q has %d bytes", spec, b.Size())
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
		err = link.Check(spec)
		if open := (*link.OpenError)(nil); err != nil && (!errors.As(err, &open) || !errors.Is(err, link.ErrSpec)) {
			t.Fatalf("%q as a link: %v", spec, err)
		}
		if err == nil && strings.HasSuffix(spec, ",null") && !strings.Contains(spec, "pcap:") {
			l, err := new(link.Set).Open(spec)
			if err != nil {
				t.Fatalf("%q is right, and does not open: %v", spec, err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
