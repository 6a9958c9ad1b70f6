package guest

import (
	"encoding/base64"
	"fmt"
	"testing"

	"vfiouser/devices/nvme"
)

// TestManagement uses what nvme-cli knows of features, logs, self-tests, firmware, write
// protection and sanitize operations.
func TestManagement(t *testing.T) {
	s := serve(t, served{[]string{"mem:64M", "mem:32M"}, nil})
	g := boot(t, Config{Sockets: s.sockets, CPUs: 2})
	d := disk{nsid: 1}
	checkFeatures(t, g, d)
	checkLogs(t, g, d)
	checkSelfTest(t, g, d)
	checkFirmware(t, g, d)
	checkWriteProtection(t, g, d)
	checkSanitize(t, g, d)
	powerOff(t, g)
}

// managementScript are functions that the checks use.
const managementScript = `
fails() { # with this text
  want=$1
  shift
  if out=$("$@" 2>&1); then echo "$* did not fail: $out"; exit 1; fi
  echo "$out" | grep -qi "$want" || { echo "$* fails with: $out"; exit 1; }
}
has() { # text, in what a command prints
  want=$1
  shift
  out=$("$@" 2>&1) || { echo "$*: $out"; exit 1; }
  echo "$out" | grep -Eqi -- "$want" || { echo "no '$want' in: $*: $out"; exit 1; }
}
`

func manage(t *testing.T, g *Guest, d disk, script string) {
	t.Helper()
	run(t, g, d.script(managementScript+script))
}

func checkFeatures(t *testing.T, g *Guest, d disk) {
	t.Helper()
	manage(t, g, d, `
for f in 1 2 4 5 6 7 8 9 0xa 0xb 0xc 0xe 0xf 0x10 0x11 0x16 0x17 0x80 0x84; do
  [ $f = 6 ] && continue # memory has no cache
  nvme get-feature $ctrl -n 1 -f $f -H > /tmp/out 2>&1 || { cat /tmp/out; exit 1; }
  nvme get-feature $ctrl -n 1 -f $f -s 3 -H > /tmp/out 2>&1 || { cat /tmp/out; exit 1; }
done
fails 'invalid field' nvme get-feature $ctrl -f 6
has 'Arbitration Burst' nvme get-feature $ctrl -f 1 -H
has 'Power State.*PS.*: 0' nvme get-feature $ctrl -f 2 -H
nvme set-feature $ctrl -f 2 -V 1
has 'Power State.*PS.*: 1' nvme get-feature $ctrl -f 2 -H
nvme set-feature $ctrl -f 1 -V 0x01020304 -s
has 01020304 nvme get-feature $ctrl -f 1 -s 2
fails 'not saveable' nvme set-feature $ctrl -f 0x80 -V 1 -s
fails 'invalid field' nvme set-feature $ctrl -f 2 -V 31
nvme reset $ctrl
has 01020304 nvme get-feature $ctrl -f 1
has 'ps +4 *:' nvme id-ctrl $ctrl -H
`)
}

func checkLogs(t *testing.T, g *Guest, d disk) {
	t.Helper()
	manage(t, g, d, `
has 'LID 0xd .*Persistent Event' nvme supported-log-pages $ctrl
has 'available_spare.*100' nvme smart-log $ctrl
has 'frs1' nvme fw-log $ctrl
has 'FID 84' nvme fid-support-effects-log $ctrl
has 'endurance group' nvme endurance-log $ctrl -g 1
fails 'invalid field' nvme endurance-log $ctrl -g 2
nvme telemetry-log $ctrl --output-file=/tmp/telemetry --host-generate=1 > /tmp/out 2>&1 || { cat /tmp/out; exit 1; }
grep -q 'opcode 0x' /tmp/telemetry
has 'Power-on or Reset' nvme persistent-event-log $ctrl --action=1 --log_len=4096
nvme persistent-event-log $ctrl --action=2 > /tmp/out 2>&1 || { cat /tmp/out; exit 1; }
has 'error_count|Error Log Entries' nvme error-log $ctrl -e 4
nvme changed-ns-list-log $ctrl > /dev/null
`)
}

func checkSelfTest(t *testing.T, g *Guest, d disk) {
	t.Helper()
	manage(t, g, d, `
nvme device-self-test $ctrl -n 0xffffffff -s 2
fails 'in progress' nvme device-self-test $ctrl -n 1 -s 1
nvme device-self-test $ctrl -n 1 -s 0xf
has 'Operation Result *: *0x1' nvme self-test-log $ctrl
nvme device-self-test $ctrl -n 1 -s 1
for i in $(seq 50); do
  nvme self-test-log $ctrl | grep -q 'Current operation *: *0$' && break
  sleep 0.2
done
has 'Operation Result *: *0$' nvme self-test-log $ctrl
`)
}

func checkFirmware(t *testing.T, g *Guest, d disk) {
	t.Helper()
	image, err := nvme.FirmwareImage("2.5", nil)
	if err != nil {
		t.Fatal(err)
	}
	manage(t, g, d, fmt.Sprintf(`
echo %s | base64 -d > /tmp/image
nvme fw-download $ctrl -f /tmp/image
nvme fw-commit $ctrl -s 2 -a 3 # it says that Linux looks at the new firmware just then
has '2\.5' nvme id-ctrl $ctrl
has 'frs2.*2\.5' nvme fw-log $ctrl
dd if=/dev/zero of=/tmp/zeroes bs=4096 count=1 2> /dev/null
nvme fw-download $ctrl -f /tmp/zeroes
fails 'image' nvme fw-commit $ctrl -s 3 -a 0
nvme fw-commit $ctrl -s 1 -a 2
nvme reset $ctrl
has 'afi *: *0x1' nvme fw-log $ctrl
`, base64.StdEncoding.EncodeToString(image)))
}

func checkWriteProtection(t *testing.T, g *Guest, d disk) {
	t.Helper()
	manage(t, g, d, `
nvme set-feature $disk -n 1 -f 0x84 -V 1
for i in $(seq 50); do
  [ "$(cat $sysfs/ro)" = 1 ] && break
  sleep 0.1
done
[ "$(cat $sysfs/ro)" = 1 ] || { echo "Linux does not see that the namespace is write protected"; exit 1; }
fails 'write protected' nvme write $disk -s 0 -c 0 -z 512 -d /dev/zero
nvme set-feature $disk -n 1 -f 0x84 -V 0
for i in $(seq 50); do
  [ "$(cat $sysfs/ro)" = 0 ] && break
  sleep 0.1
done
nvme write $disk -s 0 -c 0 -z 512 -d /dev/zero
`)
}

func checkSanitize(t *testing.T, g *Guest, d disk) {
	t.Helper()
	manage(t, g, d, `
dd if=/dev/urandom of=$disk bs=64k count=32 oflag=direct 2> /dev/null
nvme sanitize $ctrl -a 2
fails 'sanitize' nvme read $disk -s 0 -c 0 -z 512
has 'in progress' nvme sanitize-log $ctrl -H
for i in $(seq 50); do
  nvme sanitize-log $ctrl -H | grep -qi 'in progress' || break
  sleep 0.2
done
has 'completed successfully' nvme sanitize-log $ctrl -H
cmp -n 2097152 $disk /dev/zero
nvme sanitize $ctrl -a 3 -n 2 -p 0x5a5a5a5a -d
for i in $(seq 50); do
  nvme sanitize-log $ctrl -H | grep -qi 'in progress' || break
  sleep 0.2
done
[ "$(dd if=$disk bs=512 count=1 iflag=direct 2> /dev/null | od -An -N4 -tx4)" = " 5a5a5a5a" ]
`)
}
