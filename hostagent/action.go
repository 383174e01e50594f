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
)

var actionNames = [...]string{"wait", "fetch-base", "create-overlay", "create-data", "ask-slot", "start", "ping", "probe",
	"describe", "tell", "seek", "shutdown", "destroy", "trash-overlay", "trash-data"}

func (a action) String() string { return actionNames[a] }
