package bench

import (
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func BenchmarkCodec(b *testing.B) { benchmarkLayer(b, "codec") }

func BenchmarkTranslate(b *testing.B) { benchmarkLayer(b, "translate") }

func BenchmarkMap(b *testing.B) { benchmarkLayer(b, "map") }

func BenchmarkIRQ(b *testing.B) { benchmarkLayer(b, "irq") }

func BenchmarkRoundTrip(b *testing.B) { benchmarkLayer(b, "message") }

func BenchmarkClient(b *testing.B) { benchmarkLayer(b, "client") }

func BenchmarkMessageDMA(b *testing.B) { benchmarkLayer(b, "dma-message") }

func BenchmarkClientDMA(b *testing.B) { benchmarkLayer(b, "dma-client") }

func BenchmarkSessions(b *testing.B) {
	benchmarkLayer(b, "sessions", "sessions/parallel", "sessions/register")
}

func BenchmarkClients(b *testing.B) { benchmarkLayer(b, "sessions/parallel") }

func BenchmarkRegister(b *testing.B) { benchmarkLayer(b, "sessions/register") }

func BenchmarkRegions(b *testing.B) { benchmarkLayer(b, "regions") }

func BenchmarkLimits(b *testing.B) {
	for _, l := range Limits() {
		benchmarkSubject(b, l.Name, l.Bytes, l.Setup)
	}
}

// benchmarkLayer runs the cases of a layer, or of a part of one, under names that are theirs
// without it, less those of parts that have a benchmark of their own.
func benchmarkLayer(b *testing.B, layer string, less ...string) {
	for _, c := range Cases() {
		in := func(part string) bool { return c.Name == part || strings.HasPrefix(c.Name, part+"/") }
		switch {
		case !in(layer) || slices.ContainsFunc(less, in):
		case c.Name == layer:
			benchmarkSubject(b, "one", c.Bytes, c.Setup)
		default:
			benchmarkSubject(b, c.Name[len(layer)+1:], c.Bytes, c.Setup)
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
