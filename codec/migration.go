package codec

import (
	"encoding/binary"
	"strconv"
)

// MigrationFlags is the data of FeatureMigration: what a device can do beside RUNNING
// and ERROR (VFIO_MIGRATION_*).
type MigrationFlags uint64

const (
	MigrationStopCopy MigrationFlags = 1 << 0 // always, if there is migration at all
	MigrationP2P      MigrationFlags = 1 << 1 // not in vfio-user
	MigrationPreCopy  MigrationFlags = 1 << 2

	migrationFlagsSize = 8
)

// Decode reads the data of FeatureMigration.
func (f *MigrationFlags) Decode(b []byte) error {
	if len(b) < migrationFlagsSize {
		return invalid(CmdDeviceFeature, ErrShort, "MIGRATION needs 8 bytes")
	}
	*f = MigrationFlags(binary.NativeEndian.Uint64(b))
	return nil
}

// Append appends the data of FeatureMigration.
func (f MigrationFlags) Append(dst []byte) []byte {
	return binary.NativeEndian.AppendUint64(dst, uint64(f))
}

// MigState is a state of migration (specification, "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE").
type MigState uint32

const (
	MigError      MigState = 0 // failed; RESET leads back to RUNNING
	MigStop       MigState = 1 // nothing inside or outside of the device changes
	MigRunning    MigState = 2
	MigStopCopy   MigState = 3 // stopped, its state can be read
	MigResuming   MigState = 4 // stopped, its state is being written
	MigRunningP2P MigState = 5 // not in vfio-user
	MigPreCopy    MigState = 6 // runs, and its state can be read
	MigPreCopyP2P MigState = 7 // not in vfio-user

	// NumMigStates bounds an array that is indexed by state.
	NumMigStates = 8

	migStateSize = 8
)

var migStateNames = [NumMigStates]string{
	"ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P",
}

// String is the state's name without its VFIO_DEVICE_STATE_ prefix.
func (s MigState) String() string {
	if s < NumMigStates {
		return migStateNames[s]
	}
	return "state " + strconv.FormatUint(uint64(s), 10)
}

// Decode reads the data of FeatureMigDeviceState. The descriptor in it is not used in
// vfio-user.
func (s *MigState) Decode(b []byte) error {
	if len(b) < migStateSize {
		return invalid(CmdDeviceFeature, ErrShort, "MIG_DEVICE_STATE needs 8 bytes")
	}
	*s = MigState(binary.NativeEndian.Uint32(b))
	if *s >= NumMigStates {
		return invalid(CmdDeviceFeature, ErrRange, "unknown migration state")
	}
	return nil
}

// Append appends the data of FeatureMigDeviceState.
func (s MigState) Append(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, uint32(s))
	return binary.NativeEndian.AppendUint32(dst, 0)
}
