package libvirt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	lv "libvirt.org/go/libvirt"

	"daybreak/hostagent"
)

// libvirt's test driver is a hypervisor in this process: enough for connections and lists, without root or VM.
func TestForeignDomainsAreNotOurs(t *testing.T) {
	h, err := Open(Config{URI: "test:///default", Store: "/var/lib/daybreak-agent/store"}, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := h.Domains(ctx); !errors.Is(err, errNotConnected) {
		t.Errorf("Domains before Run: %v, want errNotConnected", err)
	}
	var g errgroup.Group
	g.Go(func() error { return h.Run(ctx) })
	<-h.Hints()
	for {
		domains, err := h.Domains(ctx)
		if errors.Is(err, errNotConnected) {
			<-h.Hints()
			continue
		}
		// It has one domain, named "test", without metadata of ours.
		if err != nil || len(domains) != 0 {
			t.Errorf("Domains = %v, %v", domains, err)
		}
		break
	}
	if err := h.Destroy(ctx, machine().Life); !errors.Is(err, hostagent.ErrNotFound) && !errors.Is(err, errNotConnected) {
		t.Errorf("Destroy = %v", err)
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestRunOutlastsAMissingDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "no-such-socket")
	h, err := Open(Config{URI: "qemu+unix:///system?socket=" + socket, Store: "/store"}, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return h.Run(ctx) })
	if _, err := h.Probe(ctx); !errors.Is(err, errNotConnected) {
		t.Errorf("Probe = %v, want errNotConnected", err)
	}
	if err := g.Wait(); err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, store := range []string{"", "store", "/a/../b"} {
		if _, err := Open(Config{Store: store}, zerolog.Nop()); err == nil {
			t.Errorf("store %q was taken", store)
		}
	}
}

func TestStateOf(t *testing.T) {
	for _, c := range []struct {
		state  lv.DomainState
		reason int
		want   hostagent.DomainState
	}{
		{lv.DOMAIN_RUNNING, 1, hostagent.DomainRunning},
		{lv.DOMAIN_BLOCKED, 0, hostagent.DomainRunning},
		{lv.DOMAIN_PAUSED, int(lv.DOMAIN_PAUSED_IOERROR), hostagent.DomainPausedIO},
		{lv.DOMAIN_PAUSED, int(lv.DOMAIN_PAUSED_USER), hostagent.DomainPaused},
		{lv.DOMAIN_PMSUSPENDED, 0, hostagent.DomainPaused},
		{lv.DOMAIN_SHUTDOWN, 0, hostagent.DomainShuttingDown},
		{lv.DOMAIN_SHUTOFF, 0, hostagent.DomainGone},
		{lv.DOMAIN_CRASHED, 0, hostagent.DomainGone},
		{lv.DOMAIN_NOSTATE, 0, hostagent.DomainUnknown},
		{lv.DomainState(99), 0, hostagent.DomainUnknown},
	} {
		if got := stateOf(c.state, c.reason); got != c.want {
			t.Errorf("state %d, reason %d is %d, want %d", c.state, c.reason, got, c.want)
		}
	}
}

func TestStartErrors(t *testing.T) {
	for _, c := range []struct {
		err       lv.Error
		permanent bool
	}{
		{lv.Error{Code: lv.ERR_OPERATION_FAILED, Message: "operation failed: domain 'b' already exists with uuid 0b6c7d8e"}, true},
		{lv.Error{Code: lv.ERR_OPERATION_INVALID, Message: "Requested operation is not valid: domain is already active as 'a'"}, true},
		{lv.Error{Code: lv.ERR_CONFIG_UNSUPPORTED, Message: "unsupported configuration: q36"}, true},
		{lv.Error{Code: lv.ERR_XML_ERROR, Message: "XML error: x"}, true},
		{lv.Error{Code: lv.ERR_INTERNAL_ERROR, Message: `process exited: Failed to get "write" lock`}, false},
		{lv.Error{Code: lv.ERR_INTERNAL_ERROR, Message: "Cannot get interface MTU on 'br-x': No such device"}, false},
		{lv.Error{Code: lv.ERR_SYSTEM_ERROR, Message: "Unable to read from monitor: Connection reset by peer"}, false},
	} {
		err := startError(machine().Life, c.err)
		if errors.Is(err, hostagent.ErrPermanent) != c.permanent || !errors.Is(err, c.err.Code) {
			t.Errorf("%v became %v", c.err, err)
		}
	}
}

func TestConnectionsEndMeansUnknown(t *testing.T) {
	for _, c := range []struct {
		err     error
		unknown bool
	}{
		{nil, false}, {errors.New("x"), false}, {fmt.Errorf("x: %w", lv.Error{Code: lv.ERR_NO_DOMAIN, Domain: lv.FROM_QEMU}), false},
		{fmt.Errorf("x: %w", lv.Error{Code: lv.ERR_INTERNAL_ERROR, Domain: lv.FROM_RPC, Message: "client socket is closed"}), true},
		{lv.Error{Code: lv.ERR_RPC, Domain: lv.FROM_REMOTE}, true},
	} {
		if got := unknown(c.err); errors.Is(got, hostagent.ErrTimeout) != c.unknown || (got == nil) != (c.err == nil) {
			t.Errorf("%v became %v", c.err, got)
		}
	}
}

func TestParseCapabilities(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "capabilities.xml"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := parseCapabilities(string(text))
	if err != nil || p.UID != 64055 || p.GID != 107 || p.Emulator != "/usr/bin/qemu-system-x86_64" || len(p.SecurityModels) != 2 {
		t.Errorf("posture %+v, %v", p, err)
	}
	for _, bad := range []string{"", "<", "<capabilities/>", "<domain/>", string(text[:len(text)/2]), strings.Repeat("<capabilities>", 20_000),
		strings.Replace(string(text), "<os_type>hvm", "<os_type>xen", 1), "<capabilities><host><secmodel><model>dac</model><baselabel type='kvm'>root</baselabel></secmodel></host></capabilities>"} {
		if p, err := parseCapabilities(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, p)
		}
	}
	for label, ok := range map[string]bool{"+0:+0": true, "64055:107": true, "": false, "+1": false, "+-1:+1": false, "a:b": false, "+1:+1:+1": false,
		// In the kernel the first would become "no change", the second root.
		"+4294967295:+1": false, "+4294967296:+4294967296": false, "+99999999999999999999:+1": false} {
		if _, _, got := parseDACLabel(label); got != ok {
			t.Errorf("label %q: %v", label, got)
		}
	}
	if got := version(7002022); got != "7.2.22" {
		t.Errorf("version %s", got)
	}
}

// FuzzCapabilities: what is taken names a user that there can be, and a QEMU.
func FuzzCapabilities(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "capabilities.xml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add(strings.ReplaceAll(string(text), "+64055", "+4294967296"))
	f.Add("<capabilities><guest/><host><secmodel/></host></capabilities>")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseCapabilities(text)
		if err == nil && (p.Emulator == "" || p.UID < 0 || p.GID < 0 || p.UID > math.MaxInt32 || p.GID > math.MaxInt32) {
			t.Errorf("%+v", p)
		}
	})
}

func TestDecideMend(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		what string
		s    stopped
		free uint64
		want bool
	}{
		{"full, and still is", stopped{status: ioFull}, mendRoom - 1, false},
		{"full, and has room again", stopped{status: ioFull, tried: now}, mendRoom, true},
		{"failed, never tried", stopped{status: ioFailed}, 0, true},
		{"failed, tried just now", stopped{status: ioFailed, tried: now.Add(-time.Second)}, 1 << 40, false},
		{"failed, tried a while ago", stopped{status: ioFailed, tried: now.Add(-mendFailedEvery)}, 1 << 40, true},
		{"nobody knows why", stopped{status: ioUnknown, tried: now}, 1 << 40, false},
	} {
		if got := decideMend(now, c.s, c.free); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

// qemu is a monitor that answers one thing.
type qemu func(command string) (string, error)

func (q qemu) Connect() error    { return nil }
func (q qemu) Disconnect() error { return nil }
func (q qemu) Events(context.Context) (<-chan qmp.Event, error) {
	return nil, qmp.ErrEventsNotSupported
}
func (q qemu) Run(command []byte) ([]byte, error) {
	answer, err := q(string(command))
	return []byte(answer), err
}

func TestIOStatus(t *testing.T) {
	full, err := os.ReadFile(filepath.Join("testdata", "query-block.json"))
	if err != nil {
		t.Fatal(err)
	}
	for answer, want := range map[string]ioStatus{
		string(full): ioFull,
		`{"return":[{"io-status":"ok"},{"io-status":"nospace"},{"io-status":"failed"}]}`: ioFailed,
		`{"return":[{"io-status":"ok"},{}]}`:                                             ioUnknown,
		`{"return":[]}`:                                                                  ioUnknown,
	} {
		got, err := ioStatusOf(qemu(func(string) (string, error) { return answer, nil }))
		if err != nil || got != want {
			t.Errorf("%.60s: %s, %v; want %s", answer, got, err, want)
		}
	}
	for name, q := range map[string]qemu{
		"hangs":   func(string) (string, error) { return "", hostagent.ErrTimeout },
		"rubbish": func(string) (string, error) { return "rubbish", nil },
	} {
		if got, err := ioStatusOf(q); err == nil || got != ioUnknown {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestMonitorHasNoEvents(t *testing.T) {
	if _, err := (&monitor{life: machine().Life}).Events(t.Context()); !errors.Is(err, qmp.ErrEventsNotSupported) {
		t.Errorf("Events = %v", err)
	}
}
