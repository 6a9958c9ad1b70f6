package nvme

import (
	"errors"
	"testing"

	"vfiouser/block"
	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

// A program makes a namespace, uses it, gives it another format and removes it.
func TestNamespacesAreMadeAndRemoved(t *testing.T) {
	pool, err := block.OpenPool("mem:16M")
	if err != nil {
		t.Fatal(err)
	}
	s, err := device.NewSubsystem(device.SubsystemConfig{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c := newDisk(t, device.Config{Subsystem: s}).open(t)
	ctx := testContext(t)
	if list := c.Namespaces(); len(list) != 0 {
		t.Fatalf("%d namespaces", len(list))
	}
	id := c.Identify().ControllerID
	nsid, err := c.CreateNamespace(ctx, 256, 1, &spec.IdentifyNamespace{NMIC: spec.NMICShared})
	if err != nil {
		t.Fatal(err)
	}
	step := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := c.Rescan(ctx); err != nil {
			t.Fatal(err)
		}
	}
	step("attach", c.AttachNamespace(ctx, nsid, id))
	n := c.Namespace(nsid)
	if n.Blocks() != 256 || n.BlockSize() != 4096 {
		t.Fatalf("%d blocks of %d bytes", n.Blocks(), n.BlockSize())
	}
	if _, err := n.WriteAt([]byte("hello"), 8190); err != nil {
		t.Fatal(err)
	}
	step("format", c.Format(ctx, nsid, spec.FormatNVM{}))
	n = c.Namespace(nsid)
	b := make([]byte, 5)
	if _, err := n.ReadAt(b, 8190); err != nil || string(b) != "\x00\x00\x00\x00\x00" || n.BlockSize() != 512 {
		t.Errorf("%v, %q, blocks of %d bytes", err, b, n.BlockSize())
	}
	step("detach", c.DetachNamespace(ctx, nsid, id))
	if c.Namespace(nsid) != nil {
		t.Error("it is still there")
	}
	if err := c.DetachNamespace(ctx, nsid, id); !errors.Is(err, spec.NamespaceNotAttached) {
		t.Error(err)
	}
	step("delete", c.DeleteNamespace(ctx, nsid))
	if err := c.DeleteNamespace(ctx, nsid); !errors.Is(err, spec.InvalidField) {
		t.Error(err)
	}
	if _, err := c.CreateNamespace(ctx, 1<<20, 0, nil); !errors.Is(err, spec.NamespaceInsufficientCapacity) {
		t.Error(err)
	}
}
