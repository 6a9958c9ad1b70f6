package guest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestVerifyMethods has fio write with every method of verification that it knows and read
// back, and find what a filter corrupts.
func TestVerifyMethods(t *testing.T) {
	s := serve(t, served{namespaces: []string{"mem:64M", "corrupt:read:at=8M+4K,mem:16M"}})
	g := boot(t, Config{Sockets: s.sockets, CPUs: 2})
	d := disk{nsid: 1, size: 64 << 20}
	jobs := verifyMethods(t, g)
	for i, method := range jobs {
		jobs[i] = fmt.Sprintf("--name=%s --offset=%dm --verify=%s", method, 2*i, method)
		if method == "pattern" {
			jobs[i] += " --verify_pattern=0xdeadbeef%o"
		}
	}
	const fio = `fio --direct=1 --ioengine=libaio --thread --rw=randwrite --iodepth=8 --verify_fatal=1 `
	run(t, g, d.script(fio+`--filename=$disk --bssplit=4k/50:20k/30:64k/20 --size=1m `+strings.Join(jobs, " ")))
	run(t, g, disk{nsid: 2}.script(`
if out=$(`+fio+`--name=corrupt --filename=$disk --bs=4k --size=16m --verify=md5 2>&1); then
  echo "fio finds nothing wrong: $out"; exit 1
fi
echo "$out" | grep -q 'verify failed at file .* offset 8388608' || { echo "$out"; exit 1; }`))
	powerOff(t, g)
}

// verifyMethods are fio's methods of verification, without those that check nothing and the
// one that is always on.
func verifyMethods(t *testing.T, g *Guest) (methods []string) {
	t.Helper()
	_, values, found := strings.Cut(run(t, g, "fio --cmdhelp=verify"), "valid values:")
	for line := range strings.Lines(values) {
		fields := strings.Fields(strings.TrimLeft(line, " :"))
		if len(fields) > 0 && !slices.Contains([]string{"0", "null", "meta"}, fields[0]) {
			methods = append(methods, fields[0])
		}
	}
	for _, known := range []string{"md5", "crc64", "crc32c", "sha512", "sha3-512", "xxhash", "pattern"} {
		if !found || !slices.Contains(methods, known) {
			t.Fatalf("fio's methods are %q, without %s", methods, known)
		}
	}
	return methods
}

// TestCharacterDevice has fio send commands through the namespace's character device with
// io_uring, on queues with interrupts and on one that is polled.
func TestCharacterDevice(t *testing.T) {
	d := disk{nsid: 1, size: 128 << 20}
	s := serve(t, served{namespaces: []string{"mem:128M"}})
	g := boot(t, Config{Sockets: s.sockets, CPUs: 2, Kernel: []string{"nvme.poll_queues=1"}})
	for _, options := range []string{
		"--rw=randrw --verify=crc32c --bssplit=4k/60:16k/20:128k/20",
		"--rw=randrw --verify=crc32c --bs=4k --fixedbufs=1 --registerfiles=1",
		"--rw=randrw --verify=crc32c --bs=4k --hipri=1 --iodepth_batch_complete_min=0",
		"--rw=randtrim --bs=64k",
	} {
		run(t, g, d.script(`
fio --name=passthru --filename=/dev/ng${disk#/dev/nvme} --ioengine=io_uring_cmd --cmd_type=nvme --thread \
  --iodepth=16 --numjobs=2 --size=4m --offset_increment=4m --verify_fatal=1 --group_reporting `+options))
	}
	run(t, g, d.script(`cmp -n 4194304 $disk /dev/zero`)) // (trimmed)
	checkVerifiedIO(t, g, d, 2, 4)
	powerOff(t, g)
}
