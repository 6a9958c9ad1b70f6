package bench

import (
	"log/slog"
	"runtime"
	"strings"
	"testing"
)

func BenchmarkCodec(b *testing.B) { benchmarkLayer(b, "codec") }

func BenchmarkTranslate(b *testing.B) { benchmarkLayer(b, "translate") }

func BenchmarkMap(b *testing.B) { benchmarkLayer(b, "map") }

func BenchmarkIRQ(b *testing.B) { benchmarkLayer(b, "irq") }

func BenchmarkLimits(b *testing.B) {
	for _, l := range Limits() {
		benchmarkSubject(b, l.Name, l.Bytes, l.Setup)
	}
}

// benchmarkLayer runs the cases of a layer under names that are theirs without the layer.
func benchmarkLayer(b *testing.B, layer string) {
	for _, c := range Cases() {
		if name, ok := strings.CutPrefix(c.Name, layer+"/"); ok {
			benchmarkSubject(b, name, c.Bytes, c.Setup)
		}
	}
}

func benchmarkSubject(b *testing.B, name string, bytes int, setup func(*Env) (Subject, error)) {
	b.Run(name, func(b *testing.B) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		env, err := NewEnv(slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		defer env.Close()
		s, err := setup(env)
		if err != nil {
			b.Fatal(err)
		}
		if s.Gauge != nil {
			value, unit, err := s.Gauge()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(value, unit)
			return
		}
		b.SetBytes(int64(bytes))
		b.ReportAllocs()
		b.ResetTimer()
		if err := s.Run(b.N); err != nil {
			b.Fatal(err)
		}
	})
}
