package guest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// checkVerifiedIO has fio write the disk at random with checksums, at depth 16 from several
// jobs with requests of 4 to 128 KiB, and read it back. Each job has a piece of the disk
// of so many MiB.
func checkVerifiedIO(t *testing.T, g *Guest, d disk, jobs, mib int) {
	t.Helper()
	run(t, g, d.script(fmt.Sprintf(`
fio --name=verify --filename=$disk --direct=1 --ioengine=libaio --thread --rw=randrw \
  --bssplit=4k/60:16k/20:128k/20 --iodepth=16 --numjobs=%d --size=%dm --offset_increment=%[2]dm \
  --verify=crc32c --verify_fatal=1 --group_reporting`, jobs, mib)))
}

// files is how many files writeFiles writes.
const files = 24

// writeFiles makes a filesystem on the disk and writes files whose checksums lie in a list
// beside them: the guest's own libraries, from some KiB to some MiB.
func writeFiles(t *testing.T, g *Guest, d disk) {
	t.Helper()
	run(t, g, d.script(fmt.Sprintf(`
mkfs.ext4 -q -F $disk
mount $disk /mnt
mkdir /mnt/files
cp $(find /lib/x86_64-linux-gnu -type f -size -8192 | sort | head -n %d) /mnt/files
cd /mnt/files
md5sum * > ../sums
cd /
umount /mnt`, files)))
}

// checkFiles mounts the disk and compares the files with their checksums, none of them
// from the guest's page cache.
func checkFiles(t *testing.T, g *Guest, d disk) {
	t.Helper()
	run(t, g, d.script(fmt.Sprintf(`
echo 3 > /proc/sys/vm/drop_caches
mount $disk /mnt
cd /mnt/files
md5sum -c ../sums
[ $(ls | wc -l) = %d ]
cd /
umount /mnt
e2fsck -f -n $disk`, files)))
}

// checkCommands sends the commands that no filesystem sends, and looks at the data and at
// what nvme-cli makes of failures. It overwrites blocks 1,000 to 2,007.
func checkCommands(t *testing.T, g *Guest, d disk) {
	t.Helper()
	run(t, g, d.script(`
cd /tmp
fails() { # with this text
  want=$1
  shift
  if out=$("$@" 2>&1); then echo "$*: succeeds"; return 1; fi
  echo "$out" | grep -qi "$want" || { echo "$*: $out, want $want"; return 1; }
}
io() { command=$1 first=$2 count=$3; shift 3; nvme $command $disk -s $first -c $((count-1)) "$@" > /dev/null; }
seq 2000 | head -c 4096 > blocks
tr 9 8 < blocks > others
io write 1000 8 -z 4096 -d blocks
io compare 1000 8 -z 4096 -d blocks
fails "compare failure" io compare 1000 8 -z 4096 -d others
io verify 1000 8

io write-uncor 1002 2
fails "unrecovered read" io read 1003 1 -z 512 -d /dev/null
fails "unrecovered read" io verify 1000 8
fails "unrecovered read" io compare 1000 8 -z 4096 -d blocks
fails "unrecovered read" nvme copy $disk --sdlba=2000 --slbs=1000 --blocks=7 --format=0
io verify 1000 2
io verify 1004 4
io write 1000 8 -z 4096 -d blocks
io verify 1000 8

nvme copy $disk --sdlba=2000 --slbs=1004,1000 --blocks=3,3 --format=0
{ tail -c 2048 blocks; head -c 2048 blocks; } > swapped
io read 2000 8 -z 4096 -d copied
cmp swapped copied
fails "command size limit" nvme copy $disk --sdlba=2000 --slbs=1000 --blocks=4095 --format=0
rm blocks others swapped copied`))
}

// fill prints so many bytes that are not all zero.
const (
	filled = 32 << 20
	fill   = "cat /lib/x86_64-linux-gnu/* | dd bs=1M count=32 iflag=fullblock 2> /dev/null"
)

// checkDiscard writes to the disk and discards it: the file behind it must become smaller,
// and what was discarded must read as zeroes.
func checkDiscard(t *testing.T, g *Guest, d disk, backing string) {
	t.Helper()
	run(t, g, d.script("blkdiscard $disk; "+fill+" > $disk; sync"))
	full := blocks(t, backing)
	if full < filled {
		t.Fatalf("the file takes %d bytes after %d were written", full, filled)
	}
	run(t, g, d.script("blkdiscard $disk; cmp -n 2097152 $disk /dev/zero"))
	if left := blocks(t, backing); left > full-filled {
		t.Errorf("the file takes %d bytes after blkdiscard, %d before", left, full)
	}
}

// checkTrim deletes a file of a mounted filesystem and trims that: the file behind the disk
// must become smaller.
func checkTrim(t *testing.T, g *Guest, d disk, backing string) {
	t.Helper()
	run(t, g, d.script("mkfs.ext4 -q -F $disk; mount $disk /mnt; "+fill+" > /mnt/big; sync"))
	full := blocks(t, backing)
	if full < filled {
		t.Fatalf("the file takes %d bytes after %d were written", full, filled)
	}
	run(t, g, "rm /mnt/big; sync; fstrim /mnt; umount /mnt")
	if left := blocks(t, backing); left > full-filled*9/10 {
		t.Errorf("the file takes %d bytes after fstrim, %d before", left, full)
	}
}

// startEndlessIO leaves a job running that keeps requests outstanding, and waits until it
// has got going.
func startEndlessIO(t *testing.T, g *Guest, d disk) {
	t.Helper()
	run(t, g, d.script(`
fio --name=endless --filename=$disk --direct=1 --ioengine=libaio --thread --rw=randrw --bs=16k \
  --iodepth=16 --time_based --runtime=600 > /tmp/endless 2>&1 &`))
	was := requests(t, g, d)
	eventually(t, func() error {
		if requests(t, g, d) < was+100 {
			return fmt.Errorf("fio does not get going: %s", run(t, g, "cat /tmp/endless"))
		}
		return nil
	})
}

// requests is the number of reads that the guest's kernel has seen completed.
func requests(t *testing.T, g *Guest, d disk) int {
	t.Helper()
	fields := strings.Fields(run(t, g, d.script("cat $sysfs/stat")))
	n, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
