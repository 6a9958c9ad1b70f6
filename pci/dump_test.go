package pci

import (
	"strings"
	"testing"
)

func TestDump(t *testing.T) {
	for _, tt := range []struct {
		name, title string
		bytes       []byte
		want        string
	}{
		{"no bytes", "none", nil, "00:00.0 none\n\n"},
		{"a line and a part", "two", []byte("0123456789abcdefgh"),
			"00:00.0 two\n00: 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66\n10: 67 68\n\n"},
		{"control characters in the title", "a\nb\x00c\x7fd", nil, "00:00.0 a b c d\n\n"},
		{"a title outside of ASCII", "gerät", nil, "00:00.0 gerät\n\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(AppendDump(nil, tt.title, tt.bytes)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := string(AppendDump(nil, "", make([]byte, 4096))); !strings.Contains(got, "\n100: 00") || !strings.Contains(got, "\nff0: 00") {
		t.Error("lines of the extended space are missing")
	}
}
