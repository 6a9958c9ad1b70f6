package virtio_test

import (
	"testing"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/test/holdings"
)

// frugal measures what a batch costs, while nobody else uses the queue.
type frugal struct {
	virtio.BaseDevice
	chains []virtqueue.Chain
	allocs chan float64
}

func (f *frugal) StartQueue(_ int, q *virtio.Queue) {
	f.allocs <- testing.AllocsPerRun(100, func() {
		if !q.Enter() {
			panic("the queue cannot be used")
		}
		if n, err := q.Take(f.chains); n != 0 || err != nil {
			panic("there is something in the queue")
		}
		q.Arm()
		q.Publish()
		q.Exit()
		q.Interrupt()
	})
}

func (f *frugal) StopQueue(int) {}

func TestBatchesAllocateNothing(t *testing.T) {
	holdings.CheckLeaks(t)
	eng := newLab(t, virtio.Config{}).engine
	d := &frugal{chains: make([]virtqueue.Chain, 32), allocs: make(chan float64)}
	f, err := virtio.New(virtio.Config{Type: 42, Queues: 1, QueueSize: maxSize, Features: allFeatures}, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	g := serveFunction(t, eng, f).attach(t)
	for _, msix := range []bool{false, true} {
		if msix {
			g.msix(2)
		}
		g.negotiate(plainFeatures | spec.FeatureEventIdx)
		g.newRing(0, maxSize, 0)
		g.step(driverOK)
		if n := <-d.allocs; n != 0 {
			t.Errorf("%v allocations for a batch, MSI-X %v", n, msix)
		}
	}
}
