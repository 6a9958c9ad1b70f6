package engine

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// version is the payload of VERSION with the given capabilities.
func version(minor uint32, caps string) []byte {
	return append(append(u32(minor<<16), `{"capabilities":`+caps+`}`...), 0)
}

const qemuCaps = `{"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096,` +
	`"migration":{"pgsize":4096,"max_bitmap_size":268435456},"write_multiple":true}`

// The answer to a client's capabilities, by the byte.
func TestCapabilitiesAreAnswered(t *testing.T) {
	const ours = `"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096`
	all := Config{WriteMultiple: true}
	for _, c := range []struct {
		name string
		cfg  Config
		req  []byte
		want string
	}{
		{"no JSON, as SPDK", Config{}, u32(1 << 16), `{` + ours + `}`},
		{"an empty object", Config{}, append(u32(1<<16), "{}\x00"...), `{` + ours + `}`},
		{"no capabilities", Config{}, version(1, `{}`), `{` + ours + `}`},
		{"QEMU", Config{}, version(0, qemuCaps), `{` + ours + `,"migration":{"pgsize":4096,"max_bitmap_size":1048576}}`},
		{"QEMU, and everything it asks for", all, version(0, qemuCaps), `{` + ours + `,"write_multiple":true,"migration":{"pgsize":4096,"max_bitmap_size":1048576}}`},
		{"cloud-hypervisor", Config{}, version(1, `{"max_msg_fds":1,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}`), `{` + ours + `,"migration":{"pgsize":4096}}`},
		{"migration of larger pages", Config{}, version(1, `{"migration":{"pgsize":65536}}`), `{` + ours + `,"migration":{"pgsize":4096}}`},
		{"migration without pgsize", Config{}, version(1, `{"migration":{}}`), `{` + ours + `,"migration":{"pgsize":4096}}`},
		{"a small bitmap", Config{}, version(1, `{"migration":{"pgsize":4096,"max_bitmap_size":100}}`), `{` + ours + `,"migration":{"pgsize":4096,"max_bitmap_size":100}}`},
		{"few DMA maps", Config{}, version(1, `{"max_dma_maps":8}`), strings.Replace(`{`+ours+`}`, "65535", "8", 1)},
		{"more DMA maps than are served", Config{}, version(1, `{"max_dma_maps":1000000}`), `{` + ours + `}`},
		{"large data, many descriptors", Config{}, version(1, `{"max_data_xfer_size":67108864,"max_msg_fds":1000}`), `{` + ours + `}`},
		{"page sizes beside ours", Config{}, version(1, `{"pgsizes":2101248}`), `{` + ours + `}`},
		{"members that nobody knows", Config{}, version(1, `{"x":{"y":[1,"z",null]},"Migration":{"pgsize":"1"}}`), `{` + ours + `}`},
		{"no twin socket, no write_multiple", all, version(1, `{"twin_socket":{"supported":false},"write_multiple":false}`), `{` + ours + `}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := newBed(t, c.cfg).dial()
			h, reply, fds := conn.call(codec.CmdVersion, c.req)
			reactor.CloseFDs(fds)
			if got, want := string(reply[min(len(reply), codec.VersionSize):]), `{"capabilities":`+c.want+"}\x00"; h.Err() != nil || got != want || len(fds) != 0 {
				t.Errorf("%v, %d descriptors\n got %s\nwant %s", h.Err(), len(fds), got, want)
			}
			if len(reply)+codec.HeaderSize > 214 {
				t.Errorf("%d bytes, QEMU takes 214", len(reply)+codec.HeaderSize)
			}
		})
	}
}

// A member of the wrong type is refused, and ends the session.
func TestCapabilitiesOfTheWrongTypeAreRefused(t *testing.T) {
	b := newBed(t, Config{})
	for _, caps := range []string{
		`7`, `null`, `[]`, `"x"`,
		`{"max_msg_fds":"16"}`, `{"max_msg_fds":-1}`, `{"max_msg_fds":1.5}`, `{"max_msg_fds":null}`, `{"max_msg_fds":18446744073709551616}`,
		`{"max_data_xfer_size":true}`, `{"max_data_xfer_size":0}`, `{"max_dma_maps":{}}`, `{"pgsizes":[4096]}`, `{"pgsizes":0}`, `{"pgsizes":65536}`,
		`{"write_multiple":1}`, `{"write_multiple":"true"}`,
		`{"twin_socket":true}`, `{"twin_socket":{"supported":1}}`, `{"twin_socket":{"fd_index":-1}}`,
		`{"migration":4096}`, `{"migration":{"pgsize":"4096"}}`, `{"migration":{"max_bitmap_size":{}}}`,
		`{"max_msg_fds":1`, `{}}`, `{} {}`,
		fmt.Sprintf(`{"x":%q}`, strings.Repeat("x", maxVersion)),
	} {
		conn := b.dial()
		conn.fails(unix.EINVAL, codec.CmdVersion, version(1, caps))
		conn.ends()
		b.settled()
	}
	b.dial().ok(codec.CmdVersion, version(1, qemuCaps))
}

// What the client takes at most is kept to in every direction.
func TestMaxDataXferSizeIsKeptTo(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.dial()
	conn.ok(codec.CmdVersion, version(1, `{"max_data_xfer_size":100}`))
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x1000))
	done := make(chan error, 1)
	for _, cmd := range []codec.Command{codec.CmdDMARead, codec.CmdDMAWrite} {
		p := make([]byte, 250)
		if cmd == codec.CmdDMARead {
			b.device.session().StartReadDMA(0x100000, p, func(err error) { done <- err })
		} else {
			b.device.session().StartWriteDMA(0x100000, p, func(err error) { done <- err })
		}
		for _, want := range []uint64{100, 100, 50} {
			h, ask := conn.dmaRequest(cmd)
			if ask.Count != want {
				t.Errorf("%v of %d bytes, want %d", cmd, ask.Count, want)
			}
			if cmd == codec.CmdDMAWrite {
				conn.answerDMA(h, ask, nil)
			} else {
				conn.answerDMA(h, ask, make([]byte, ask.Count))
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	// The server's own limit holds for what the client asks for.
	conn.fails(unix.EINVAL, codec.CmdRegionRead, regionRead(0, 0, maxDataXfer+1))
	conn.fails(unix.EINVAL, codec.CmdGetRegionIOFDs, ioFDs(maxDataXfer+1, 0))
}
