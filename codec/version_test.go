package codec

import (
	"reflect"
	"testing"
)

func versionPayload(json string) []byte { return pack(uint16(0), uint16(1), json, uint8(0)) }

func TestVersionWithoutJSON(t *testing.T) {
	var m VersionMsg // SPDK sends 20 bytes in all
	wantError(t, m.Decode(pack(uint16(0), uint16(1))), CmdVersion, nil)
	if want := (VersionMsg{Minor: 1}); !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v", m)
	}
	m.Caps.Defaults()
	want := Capabilities{MaxMsgFDs: 1, MaxDataXferSize: 1048576, MaxDMAMaps: 65535, PgSizes: 4096}
	if !reflect.DeepEqual(m.Caps, want) {
		t.Errorf("defaults %+v, want %+v", m.Caps, want)
	}
}

func TestVersionCapabilities(t *testing.T) {
	index := uint64(2)
	all := HasMaxMsgFDs | HasMaxDataXferSize | HasMaxDMAMaps | HasPgSizes
	for _, tt := range []struct {
		name, json string
		want       Capabilities
	}{
		{"no capabilities", `{}`, Capabilities{}},
		{"empty capabilities", `{"capabilities":{}}`, Capabilities{}},
		{"as QEMU sends them",
			`{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, "max_data_xfer_size": 1048576, ` +
				`"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "write_multiple": true}}`,
			Capabilities{MaxMsgFDs: 16, MaxDataXferSize: 1048576, MaxDMAMaps: 65535, PgSizes: 4096, WriteMultiple: true,
				Migration: &MigrationCaps{PgSize: 4096, MaxBitmapSize: 268435456}, Present: all}},
		{"as cloud-hypervisor sends them",
			`{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}`,
			Capabilities{MaxMsgFDs: 1, MaxDataXferSize: 1048576, Migration: &MigrationCaps{PgSize: 4096},
				Present: HasMaxMsgFDs | HasMaxDataXferSize}},
		{"0 is not absent", `{"capabilities":{"max_msg_fds":0}}`, Capabilities{Present: HasMaxMsgFDs}},
		{"largest number", `{"capabilities":{"pgsizes":18446744073709551615}}`,
			Capabilities{PgSizes: ^uint64(0), Present: HasPgSizes}},
		{"twin socket wanted", `{"capabilities":{"twin_socket":{"supported":true}}}`,
			Capabilities{TwinSocket: &TwinSocket{Supported: true}}},
		{"twin socket given", `{"capabilities":{"twin_socket":{"supported":true,"fd_index":2}}}`,
			Capabilities{TwinSocket: &TwinSocket{Supported: true, FDIndex: &index}}},
		{"twin socket says nothing", `{"capabilities":{"twin_socket":{}}}`, Capabilities{TwinSocket: &TwinSocket{}}},
		{"no write_multiple", `{"capabilities":{"write_multiple":false}}`, Capabilities{}},
		{"unknown members", `{"x":[1,{}],"capabilities":{"y":null,"migration":{"z":"?"}}}`,
			Capabilities{Migration: &MigrationCaps{}}},
		{"names are case-sensitive", `{"capabilities":{"MAX_MSG_FDS":"x"},"Capabilities":1}`, Capabilities{}},
		{"blanks", " {\n\t\"capabilities\" : { \"max_dma_maps\" : 3 } } ", Capabilities{MaxDMAMaps: 3, Present: HasMaxDMAMaps}},
		{"what follows the NUL does not count", `{}` + "\x00garbage", Capabilities{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m VersionMsg
			wantError(t, m.Decode(versionPayload(tt.json)), CmdVersion, nil)
			if !reflect.DeepEqual(m.Caps, tt.want) {
				t.Errorf("got %+v, want %+v", m.Caps, tt.want)
			}
			var again VersionMsg
			wantError(t, again.Decode(m.Append(nil)), CmdVersion, nil)
			if !reflect.DeepEqual(again, m) {
				t.Errorf("%+v after a round trip, was %+v", again, m)
			}
		})
	}
}

func TestVersionIsRefused(t *testing.T) {
	for _, tt := range []struct{ name, json string }{
		{"nothing but a NUL", ``},
		{"not JSON", `hello`},
		{"cut", `{"capabilities":{`},
		{"more than one value", `{} {}`},
		{"array", `[]`},
		{"number", `1`},
		{"null", `null`},
		{"capabilities: array", `{"capabilities":[]}`},
		{"capabilities: null", `{"capabilities":null}`},
		{"number: string", `{"capabilities":{"max_msg_fds":"8"}}`},
		{"number: negative", `{"capabilities":{"max_msg_fds":-1}}`},
		{"number: fraction", `{"capabilities":{"max_data_xfer_size":1.5}}`},
		{"number: exponent", `{"capabilities":{"max_data_xfer_size":1e6}}`},
		{"number: beyond 64 bits", `{"capabilities":{"pgsizes":18446744073709551616}}`},
		{"number: null", `{"capabilities":{"max_dma_maps":null}}`},
		{"number: boolean", `{"capabilities":{"max_dma_maps":true}}`},
		{"boolean: number", `{"capabilities":{"write_multiple":1}}`},
		{"boolean: null", `{"capabilities":{"write_multiple":null}}`},
		{"twin_socket: boolean", `{"capabilities":{"twin_socket":true}}`},
		{"twin_socket.supported: number", `{"capabilities":{"twin_socket":{"supported":1}}}`},
		{"twin_socket.fd_index: negative", `{"capabilities":{"twin_socket":{"fd_index":-1}}}`},
		{"migration: number", `{"capabilities":{"migration":4096}}`},
		{"migration.pgsize: string", `{"capabilities":{"migration":{"pgsize":"4k"}}}`},
		{"migration.max_bitmap_size: object", `{"capabilities":{"migration":{"max_bitmap_size":{}}}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantError(t, new(VersionMsg).Decode(versionPayload(tt.json)), CmdVersion, ErrJSON)
		})
	}
	t.Run("no NUL at the end", func(t *testing.T) {
		wantError(t, new(VersionMsg).Decode(pack(uint32(0), `{}`)), CmdVersion, ErrJSON)
	})
}

func TestVersionBytes(t *testing.T) {
	m := VersionMsg{Minor: 1, Caps: Capabilities{MaxMsgFDs: 8, MaxDataXferSize: 1 << 20, MaxDMAMaps: 65535, PgSizes: 4096,
		Migration: &MigrationCaps{PgSize: 4096}}}
	b := m.Append(nil)
	wantBytes(t, b, versionPayload(`{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,`+
		`"max_dma_maps":65535,"pgsizes":4096,"migration":{"pgsize":4096}}}`))
	if n := HeaderSize + len(b); n > 214 {
		t.Errorf("%d bytes, QEMU's buffer has 214", n)
	}
	index := uint64(0)
	m = VersionMsg{Caps: Capabilities{WriteMultiple: true, TwinSocket: &TwinSocket{Supported: true, FDIndex: &index},
		Migration: &MigrationCaps{MaxBitmapSize: 1 << 28}}}
	wantBytes(t, m.Append(nil), pack(uint32(0), `{"capabilities":{"write_multiple":true,`+
		`"twin_socket":{"supported":true,"fd_index":0},"migration":{"pgsize":0,"max_bitmap_size":268435456}}}`, uint8(0)))
	wantBytes(t, new(VersionMsg).Append(nil), pack(uint32(0), `{"capabilities":{}}`, uint8(0)))
}

// QEMU gives the reply the room that its own request took, 214 bytes in all.
func TestLongestVersionReplyToQEMU(t *testing.T) {
	m := VersionMsg{Caps: Capabilities{MaxMsgFDs: 16, MaxDataXferSize: 64 << 20, MaxDMAMaps: 65535, PgSizes: 4096,
		WriteMultiple: true, Migration: &MigrationCaps{PgSize: 4096, MaxBitmapSize: 1 << 28}}}
	if n := HeaderSize + len(m.Append(nil)); n > 214 {
		t.Errorf("%d bytes", n)
	}
}

func TestDefaultsKeepWhatIsThere(t *testing.T) {
	c := Capabilities{MaxDMAMaps: 7, Present: HasMaxMsgFDs}
	c.Defaults()
	if c.MaxMsgFDs != 0 || c.MaxDMAMaps != 7 || c.MaxDataXferSize != DefaultMaxDataXferSize {
		t.Errorf("got %+v", c)
	}
}
