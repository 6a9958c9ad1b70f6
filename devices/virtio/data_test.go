package virtio_test

import (
	"testing"

	"vfiouser/devices/virtio"
	"vfiouser/test/holdings"
)

func TestQueuesAnswer(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	for range 2 {
		for _, r := range g.drive(0, 1, 2) {
			for range 3 * maxSize {
				r.exchange("who is there?")
			}
		}
	}
}
