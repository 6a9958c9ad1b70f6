package codec

import "testing"

// BenchmarkDecode and BenchmarkEncode take the sample of each form.
func BenchmarkDecode(b *testing.B) {
	for _, f := range forms() {
		b.Run(f.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f.decode(f.sample); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	buf := make([]byte, 0, 4096)
	for _, f := range forms() {
		if err := f.decode(f.sample); err != nil {
			b.Fatal(err)
		}
		b.Run(f.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.encode(buf)
			}
		})
	}
}

func BenchmarkHeader(b *testing.B) {
	buf := make([]byte, HeaderSize)
	h := Header{ID: 1, Command: CmdRegionRead, Size: 32}
	b.ReportAllocs()
	for b.Loop() {
		h.Put(buf)
		if _, err := DecodeHeader(buf); err != nil {
			b.Fatal(err)
		}
	}
}
