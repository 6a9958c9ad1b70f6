package guest

import (
	"fmt"
	"testing"
)

// TestReferenceDisk asks of the NVMe disk that QEMU itself emulates what the other tests
// ask of ours: when it fails too, the fault lies with the suite or the guest's packages.
func TestReferenceDisk(t *testing.T) {
	d := disk{nsid: 1, size: 256 << 20}
	backing := image(t, d.size)
	g := boot(t, Config{Args: []string{
		"-drive", "if=none,id=reference,format=raw,discard=unmap,file=" + backing,
		"-device", fmt.Sprintf("nvme,serial=reference,drive=reference,max_ioqpairs=1,addr=%d", firstSlot)}})
	t.Log(lab(t).Versions())
	checkController(t, g, d, 1)
	checkNamespace(t, g, d)
	checkListed(t, g, d)
	checkHealth(t, g, d)
	checkQueues(t, g, d, 1)
	writeFiles(t, g, d)
	checkFiles(t, g, d)
	checkVerifiedIO(t, g, d, 4, 8)
	checkDiscard(t, g, d, backing)
	checkTrim(t, g, d, backing)
	startEndlessIO(t, g, d)
	g.Kill()
}
