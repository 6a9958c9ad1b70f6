package nvme

import (
	"bytes"
	"testing"

	"vfiouser/devices/nvme/spec"
)

func TestSecurityInformation(t *testing.T) {
	g, page := adminGuest(t, rig{})
	receive := func(protocol, specific, n uint32) spec.Status {
		fill(g.bytes(page, 64), 0xee)
		return g.do(spec.SubmissionEntry{Opcode: spec.AdminSecurityReceive, PRP1: page, CDW10: protocol<<24 | specific<<8, CDW11: n}).Status
	}
	for _, c := range []struct {
		name               string
		protocol, specific uint32
		n                  uint32
		want               []byte
	}{
		{"protocols", 0, 0, 16, []byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}},
		{"a part of them", 0, 0, 8, []byte{0, 0, 0, 0, 0, 0, 0, 1}},
		{"certificate", 0, 1, 4, make([]byte, 4)},
		{"compliance", 0, 2, 4, make([]byte, 4)},
		{"nothing", 0, 0, 0, nil},
	} {
		if st := receive(c.protocol, c.specific, c.n); !st.OK() {
			t.Errorf("%s: %v", c.name, st)
		}
		if got := g.bytes(page, len(c.want)+1); !bytes.Equal(got[:len(c.want)], c.want) || got[len(c.want)] != 0xee {
			t.Errorf("%s: % x", c.name, got)
		}
	}
	for _, c := range []struct{ protocol, specific, n uint32 }{{1, 0, 16}, {0xef, 0, 16}, {0, 3, 16}, {0, 0, 1 << 30}} {
		if st := receive(c.protocol, c.specific, c.n); st != badField {
			t.Errorf("%+v: %v", c, st)
		}
	}
	if st := g.do(spec.SubmissionEntry{Opcode: spec.AdminSecuritySend, PRP1: page, CDW11: 4}).Status; st != badField {
		t.Errorf("send: %v", st)
	}
}

func TestDirectives(t *testing.T) {
	g, page := adminGuest(t, rig{})
	receive := spec.SubmissionEntry{Opcode: spec.AdminDirectiveReceive, NSID: 1, PRP1: page, CDW10: 1023, CDW11: identifyParameters}
	g.must(receive)
	var d spec.DirectiveParameters
	if d.Get(g.bytes(page, pageSize)); d != (spec.DirectiveParameters{Supported: 1, Enabled: 1}) {
		t.Errorf("%+v", d)
	}
	send := spec.SubmissionEntry{Opcode: spec.AdminDirectiveSend, NSID: 1, CDW11: identifyEnable, CDW12: 1 << 8}
	streams, operation, inactive, invalid := receive, receive, receive, receive
	streams.CDW11 |= 1 << 8
	operation.CDW11 = 2
	inactive.NSID, invalid.NSID = 2, MaxNamespaces+1
	for _, c := range []struct {
		name string
		e    spec.SubmissionEntry
		want spec.Status
	}{
		{"disable streams", send, spec.InvalidField},
		{"streams", streams, spec.InvalidField},
		{"reserved operation", operation, spec.InvalidField},
		{"inactive namespace", inactive, spec.InvalidField},
		{"invalid namespace", invalid, spec.InvalidNamespaceOrFormat},
	} {
		if st := g.do(c.e).Status; st != c.want|spec.StatusDNR {
			t.Errorf("%s: %v, want %v", c.name, st, c.want)
		}
	}
}
