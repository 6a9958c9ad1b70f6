package nvme

import (
	"bytes"
	"testing"

	device "vfiouser/devices/nvme"
)

func TestReadAtWriteAt(t *testing.T) {
	checkLeaks(t)
	c := newDisk(t, device.Config{}).open(t)
	n := c.Namespace(1)
	p := bytes.Repeat([]byte{1, 2, 3, 4}, 1<<18)
	if k, err := n.WriteAt(p, 512); err != nil || k != len(p) {
		t.Fatal(k, err)
	}
	q := make([]byte, len(p))
	if k, err := n.ReadAt(q, 512); err != nil || k != len(q) || !bytes.Equal(p, q) {
		t.Fatal(k, err)
	}
	t.Log(c.Doorbells(), c.Queues(), c.MaxTransfer(), c.Identify().Model)
}
