package hostagent

// action is the one thing a worker does next for a life.
type action int

const (
	wait action = iota
	fetchBase
	createOverlay
	createData
	askSlot
	start
	ping
	probe
	describe
	tell
	seek
	shutdown
	destroy
	trashOverlay
	trashData
	askSaver
	suspend
	resume
	findMemory
	dropMemory
	askUse
	confirm
)

var actionNames = [...]string{"wait", "fetch-base", "create-overlay", "create-data", "ask-slot", "start", "ping", "probe",
	"describe", "tell", "seek", "shutdown", "destroy", "trash-overlay", "trash-data",
	"ask-saver", "suspend", "resume", "find-memory", "drop-memory", "ask-use", "confirm"}

func (a action) String() string { return actionNames[a] }
