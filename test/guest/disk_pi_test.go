package guest

import (
	"fmt"
	"strings"
	"testing"
)

// protectedNamespaces are of one device. What stands behind a namespace is its own.
var protectedNamespaces = served{[]string{"mem:64M"}, strings.Fields(
	"--metadata 8 --protection 1" +
		" --namespace mem:64M --block-size 4096 --metadata 64 --protection 2" +
		" --namespace mem:64M --block-size 4096 --metadata 16 --guard 64 --protection 1" +
		" --namespace mem:64M --metadata 8 --extended --protection 1" +
		" --namespace corrupt:write:100%,mem:64M --metadata 8 --protection 1")}

// TestProtectionInformation uses namespaces with protection information that Linux makes and
// checks itself, that the controller does for it, and that nvme-cli and fio ask for.
func TestProtectionInformation(t *testing.T) {
	s := serve(t, protectedNamespaces)
	g := boot(t, Config{Sockets: s.sockets, CPUs: 2})
	for _, n := range []struct {
		nsid, block, metadata int
		profile               string // what Linux makes and checks
	}{
		{1, 512, 8, "T10-DIF-TYPE1-CRC"},
		{2, 4096, 64, "T10-DIF-TYPE1-CRC"}, // that is what Linux calls type 2
		{3, 4096, 16, "EXT-DIF-TYPE1-CRC64"},
		{4, 512, 8, "none"}, // extended blocks are the controller's business
	} {
		t.Run(fmt.Sprint(n.nsid), func(t *testing.T) {
			d := disk{nsid: n.nsid}
			run(t, g, d.script(fmt.Sprintf(`[ "$(cat $sysfs/integrity/format)" = %s ]`, n.profile)))
			checkVerifiedIO(t, g, d, 2, 8)
			checkFioProtection(t, g, d, n.block, n.metadata)
			// Where there is more metadata Linux 6.12 writes zeroes without asking for
			// protection information, and then does not take what it reads.
			if n.metadata < 64 {
				writeFiles(t, g, d)
				checkFiles(t, g, d)
				checkProtectedZeroes(t, g, d)
			}
		})
	}
	checkProtectedCommands(t, g, disk{nsid: 1})
	checkReferenceTags(t, g, disk{nsid: 2})
	checkCorruption(t, g, disk{nsid: 5})
	t.Run("formatted by the guest", func(t *testing.T) { checkFormat(t, g, disk{nsid: 1}) })
	powerOff(t, g)
}

// checkFormat has nvme-cli format a namespace with protection information and without, and uses
// it: formats 2 and 3 have blocks of 512 and 4,096 bytes with 8 of metadata, format 8 has a guard
// of 64 bits.
func checkFormat(t *testing.T, g *Guest, d disk) {
	t.Helper()
	for _, f := range []struct {
		arguments       string
		block, metadata int
		profile         string // what Linux makes and checks
		tags            string // of block 10, as they are stored; "" if fio and nvme-cli are not asked
	}{
		{"--lbaf=2 --pi=1 --ms=0", 512, 8, "T10-DIF-TYPE1-CRC", "12 34 00 00 00 0a"},
		{"--lbaf=8 --pi=1 --ms=0", 4096, 16, "EXT-DIF-TYPE1-CRC64", "12 34 00 00 00 00 00 0a"},
		{"--lbaf=3 --pi=3 --ms=0", 4096, 8, "T10-DIF-TYPE3-CRC", ""},
		{"--lbaf=0 --pi=0", 512, 0, "none", ""},
	} {
		run(t, g, d.script(fmt.Sprintf(piScript+`
nvme format $disk %s --force
[ "$(cat $sysfs/queue/logical_block_size)" = %d ] || { echo "blocks of $(cat $sysfs/queue/logical_block_size)"; exit 1; }
profile=$(cat $sysfs/integrity/format 2> /dev/null) || profile=none
[ "$profile" = %s ] || { echo "profile $profile"; exit 1; }
cmp -n 1048576 $disk /dev/zero`, f.arguments, f.block, f.profile)))
		if f.tags != "" {
			checkFioProtection(t, g, d, f.block, f.metadata)
			run(t, g, d.script(fmt.Sprintf(piScript+`
block=%d metadata=%d tags="-a 0x1234 -m 0xffff"
seq 9000 | head -c $((block*4)) > blocks
io write 7 4 -z $((block*4)) -d blocks --prinfo=8 -r 7 $tags
io read 7 4 -z $((block*4)) -y $((metadata*4)) -d back -M meta --prinfo=7 -r 7 $tags
cmp blocks back
[ "$(tail -c %d meta | od -An -tx1)" = " %s" ] || { od -tx1 meta; exit 1; }
io write 7 4 -z $((block*4)) -y $((metadata*4)) -d blocks -M meta --prinfo=7 -r 7 $tags
io read 7 4 -z $((block*4)) -d back --prinfo=15 -r 7 $tags
cmp blocks back
tr 9 8 < blocks > others
fails "guard check" io write 7 4 -z $((block*4)) -y $((metadata*4)) -d others -M meta --prinfo=4
fails "tag check" io read 7 4 -z $((block*4)) -d back --prinfo=10 -a 0x1235 -m 0xffff
rm blocks back others meta`, f.block, f.metadata, len(strings.Fields(f.tags)), f.tags)))
		} else {
			writeFiles(t, g, d)
			checkFiles(t, g, d)
		}
	}
	run(t, g, d.script(piScript+`
fails "format" nvme format $disk --lbaf=2 --pi=1 --pil=1 --force # only the last bytes of the metadata
fails "format" nvme format $disk --lbaf=0 --pi=1 --force
fails "format" nvme format $disk --lbaf=13 --force`))
}

// checkProtectedZeroes reads what was discarded, and zeroes that Linux has written.
func checkProtectedZeroes(t *testing.T, g *Guest, d disk) {
	t.Helper()
	run(t, g, d.script(`
blkdiscard $disk
cmp -n 8388608 $disk /dev/zero
dd if=/dev/urandom of=$disk bs=64k count=32 oflag=direct 2> /dev/null
blkdiscard -z -l 1M $disk
cmp -n 1048576 $disk /dev/zero
dd if=$disk of=/dev/null bs=64k count=32 iflag=direct 2> /dev/null`))
}

// checkFioProtection has fio make protection information and read it back, and ask the
// controller to do it, on the character device.
func checkFioProtection(t *testing.T, g *Guest, d disk, block, metadata int) {
	t.Helper()
	run(t, g, d.script(fmt.Sprintf(`
name=${disk##*/} char=/dev/ng${disk#/dev/nvme}
block=%d metadata=%d extended=$([ "$(cat $sysfs/integrity/format)" = none ] && echo 1 || echo 0)
pi() { # PI_ACT, bytes of a block, of metadata for each request
  for rw in randwrite randread; do
    fio --name=pi --filename=$char --ioengine=io_uring_cmd --cmd_type=nvme --thread --rw=$rw --bs=$(($2*4)) \
      --iodepth=8 --size=$(($2*2048)) --pi_act=$1 --pi_chk=GUARD,APPTAG,REFTAG --apptag=0x1234 --apptag_mask=0xffff \
      --md_per_io_size=$3 --randseed=7 > /tmp/fio 2>&1 || { cat /tmp/fio; exit 1; }
  done
}
if [ $extended = 1 ]; then
  pi 0 $((block+metadata)) 0
else
  pi 0 $block $((metadata*4))
fi
if [ $metadata = 64 ]; then pi 1 $block $((metadata*4)); else pi 1 $block 0; fi`, block, metadata)))
}

// piScript are functions for blocks of 512 bytes with 8 of metadata.
const piScript = `
cd /tmp
fails() { # with this text
  want=$1
  shift
  if out=$("$@" 2>&1); then echo "$*: succeeds"; return 1; fi
  echo "$out" | grep -qi "$want" || { echo "$*: $out, want $want"; return 1; }
}
io() { command=$1 first=$2 count=$3; shift 3; nvme $command $disk -s $first -c $((count-1)) "$@" > /dev/null; }
`

// checkProtectedCommands sends the commands as nvme-cli makes them, on separate metadata of
// type 1. It overwrites blocks 1,000 to 2,007.
func checkProtectedCommands(t *testing.T, g *Guest, d disk) {
	t.Helper()
	run(t, g, d.script(piScript+`
seq 2000 | head -c 4096 > blocks
tags="-a 0x1234 -m 0xffff"
io write 1000 8 -z 4096 -d blocks --prinfo=8 -r 1000 $tags
io read 1000 8 -z 4096 -y 64 -d back -M meta --prinfo=7 -r 1000 $tags
cmp blocks back
[ "$(tail -c 6 meta | od -An -tx1)" = " 12 34 00 00 03 ef" ]
io verify 1000 8 --prinfo=7 -r 1000 $tags
io compare 1000 8 -z 4096 -y 64 -d blocks -M meta --prinfo=7 -r 1000 $tags
fails "tag check" io read 1000 8 -z 4096 -y 64 -d back -M meta2 --prinfo=2 -a 0x1235 -m 0xffff
io read 1000 8 -z 4096 -y 64 -d back -M meta2 --prinfo=2 -a 0x1235 -m 0xfff0
fails "invalid protection" io read 1000 8 -z 4096 -y 64 -d back -M meta2 --prinfo=1 -r 1001

io write 1000 8 -z 4096 -y 64 -d blocks -M meta --prinfo=7 -r 1000 $tags
tr 9 8 < blocks > others
fails "guard check" io write 1000 8 -z 4096 -y 64 -d others -M meta --prinfo=4
io read 1000 8 -z 4096 -d back --prinfo=15 -r 1000 $tags
cmp blocks back
io write 1000 8 -z 4096 -y 64 -d others -M meta
fails "guard check" io read 1000 8 -z 4096 -d back --prinfo=12
fails "guard check" io verify 1000 8 --prinfo=4
fails "compare failure" io compare 1000 8 -z 4096 -y 64 -d blocks -M meta
io write 1000 8 -z 4096 -d blocks --prinfo=8 -r 1000 $tags

nvme copy $disk --sdlba=2000 --slbs=1004,1000 --blocks=3,3 --format=0 --prinfor=15 --prinfow=8 -r 2000 -a 0x77 -m 0xffff \
  --expected-ref-tags=1004,1000 --expected-app-tags=0x1234,0x1234 --expected-app-tag-masks=0xffff,0xffff
io read 2000 8 -z 4096 -d back --prinfo=15 -r 2000 -a 0x77 -m 0xffff
{ tail -c 2048 blocks; head -c 2048 blocks; } | cmp - back
rm blocks others back meta meta2`))
}

// checkReferenceTags uses reference tags of type 2, which may be any number.
func checkReferenceTags(t *testing.T, g *Guest, d disk) {
	t.Helper()
	run(t, g, d.script(piScript+`
seq 2000 | head -c 8192 > blocks
head -c 128 /dev/urandom > meta
io write 50 2 -z 8192 -y 128 -d blocks -M meta --prinfo=8 -r 4294967295
io read 50 2 -z 8192 -y 128 -d back -M meta2 --prinfo=5 -r 4294967295
cmp blocks back
cmp -n 56 meta meta2
[ "$(tail -c 4 meta2 | od -An -tx1)" = " 00 00 00 00" ]
fails "reference tag check" io read 50 2 -z 8192 -y 128 -d back -M meta2 --prinfo=5 -r 0
rm blocks back meta meta2`))
}

// checkCorruption reads blocks that the storage has spoilt: an I/O error in the guest, and
// an entry in the error log.
func checkCorruption(t *testing.T, g *Guest, d disk) {
	t.Helper()
	run(t, g, d.script(piScript+`
dmesg -n 1
dd if=$disk of=/dev/null bs=4096 count=8 iflag=direct
dd if=/dev/urandom of=$disk bs=4096 count=1 seek=3 oflag=direct
fails "multibyte" dd if=$disk of=/dev/null bs=4096 count=1 skip=3 iflag=direct
nvme error-log $ctrl -e 1 > log
grep "status_field.*check error" log -iq
grep -Eq "lba.*: 0x1[89a-f]$" log
fails "check error" io read 24 8 -z 4096 -d back --prinfo=15 -r 24
rm log`))
}
