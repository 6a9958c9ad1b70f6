package bench

import (
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
	benchmarkLayer(b, "sessions", "/parallel/", "/register")
}

func BenchmarkClients(b *testing.B) { benchmarkPart(b, "sessions", "/parallel/") }

func BenchmarkRegister(b *testing.B) { benchmarkPart(b, "sessions", "/register") }

func BenchmarkRegions(b *testing.B) { benchmarkLayer(b, "regions") }

func BenchmarkNVMe(b *testing.B) {
	benchmarkLayer(b, "nvme", nvmeDoorbells, nvmeQueues, nvmeIdleQueues, nvmeNamespaces, nvmeSequential)
}

// What has a benchmark of its own.
const (
	nvmeDoorbells  = "/doorbells="
	nvmeQueues     = "/queues="
	nvmeIdleQueues = "/idle-queues="
	nvmeNamespaces = "/namespaces="
	nvmeSequential = "/sequential/"
)

func BenchmarkNVMeDoorbells(b *testing.B) { benchmarkPart(b, "nvme", nvmeDoorbells) }

func BenchmarkNVMeQueues(b *testing.B) { benchmarkPart(b, "nvme", nvmeQueues) }

func BenchmarkNVMeIdleQueues(b *testing.B) { benchmarkPart(b, "nvme", nvmeIdleQueues) }

func BenchmarkNVMeNamespaces(b *testing.B) { benchmarkPart(b, "nvme", nvmeNamespaces) }

func BenchmarkNVMeSequential(b *testing.B) { benchmarkPart(b, "nvme", nvmeSequential) }

func BenchmarkVirtioNet(b *testing.B) { benchmarkLayer(b, "virtio-net") }

func BenchmarkIdle(b *testing.B) { benchmarkLayer(b, "idle") }

func BenchmarkMemory(b *testing.B) { benchmarkLayer(b, "memory") }

func BenchmarkLimits(b *testing.B) {
	for _, l := range Limits() {
		benchmarkSubject(b, l.Name, l.Bytes, l.Setup)
	}
}

// benchmarkLayer runs the cases of a layer under names that are theirs without it, less those
// with a part in their name that has a benchmark of its own.
func benchmarkLayer(b *testing.B, layer string, less ...string) {
	for _, c := range Cases() {
		name, ok := strings.CutPrefix(c.Name, layer+"/")
		if ok && !slices.ContainsFunc(less, func(part string) bool { return strings.Contains(c.Name, part) }) {
			benchmarkSubject(b, name, c.Bytes, c.Setup)
		}
	}
}

// benchmarkPart runs the cases of a layer that have a part in their names.
func benchmarkPart(b *testing.B, layer, part string) {
	for _, c := range Cases() {
		if name, ok := strings.CutPrefix(c.Name, layer+"/"); ok && strings.Contains(c.Name, part) {
			benchmarkSubject(b, name, c.Bytes, c.Setup)
		}
	}
}

func benchmarkSubject(b *testing.B, name string, bytes int, setup func(*Env) (Subject, error)) {
	b.Run(name, func(b *testing.B) {
		s := setUp(b, newEnv(b), setup)
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
