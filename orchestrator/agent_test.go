package orchestrator_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/dispatch"
	v1 "daybreak/proto/daybreak/v1"
)

// hostKey carries a host's name where a real call has a certificate.
type hostKey struct{}

func identify(ctx context.Context) (string, error) {
	if host, ok := ctx.Value(hostKey{}).(string); ok {
		return host, nil
	}
	return "", errors.New("no certificate")
}

// agent is a host in a page: every virtual second each of its desktops goes one step, and it reports what changed. It
// talks to dispatch's real server, without the wire.
type agent struct {
	name   string
	server *dispatch.Server

	mu     sync.Mutex
	silent bool   // it hears and says nothing, and its desktops run on
	broken string // why what starts fails here; empty when it does not
	lives  map[string]*life
}

type life struct {
	assignment *v1.Assignment
	status     *v1.DesktopStatus
	reported   bool
}

func (l *life) over() bool {
	return l != nil && l.status.State == v1.DesktopState_DESKTOP_STATE_DELETED
}

func (l *life) become(state v1.DesktopState, message string) {
	l.status.State, l.status.Message, l.reported = state, message, false
	l.status.Times = append(l.status.Times, &v1.StateTime{State: state, At: timestamppb.Now()})
}

// stream is the server's end of a Watch.
type stream struct {
	grpc.ServerStream
	ctx   context.Context
	agent *agent
}

func (s stream) Context() context.Context { return s.ctx }

func (s stream) Send(m *v1.Assignments) error {
	s.agent.take(m)
	return nil
}

// take notes assignments. What is here already keeps its state; a higher generation begins anew; a drop forgets a life
// that ended.
func (a *agent) take(m *v1.Assignments) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range m.GetDrop() {
		if a.lives[name].over() {
			delete(a.lives, name)
		}
	}
	for _, assignment := range m.GetSet() {
		name, generation := assignment.GetDesktop(), assignment.GetIncarnation().GetGeneration()
		l := a.lives[name]
		if l == nil || l.status.GetGeneration() < generation {
			l = &life{status: &v1.DesktopStatus{Generation: generation}}
			a.lives[name] = l
		}
		l.assignment = assignment
	}
}

// run keeps a session open until ctx ends.
func (a *agent) run(ctx context.Context) error {
	ctx = context.WithValue(ctx, hostKey{}, a.name)
	for ctx.Err() == nil {
		if a.isSilent() {
			time.Sleep(time.Second)
			continue
		}
		group, session := errgroup.WithContext(ctx)
		id := uuid.NewString()
		group.Go(func() error {
			err := a.server.Watch(&v1.WatchAssignmentsRequest{
				SessionId: id, BootId: "boot-1", Zones: []string{"lgwan"},
				Capacity: &v1.HostCapacity{Cpus: 4, MemoryMib: 8192, StoreBytes: 100 << 30, MaxBoots: 4, Kvm: true},
			}, stream{ctx: session, agent: a})
			return errors.Join(err, errors.New("session ended"))
		})
		group.Go(func() error { return a.report(session, id) })
		_ = group.Wait() // whatever it was, a new session begins
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func (a *agent) report(ctx context.Context, id string) error {
	for sequence := uint64(1); ; sequence++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		if a.isSilent() {
			return errors.New("silent")
		}
		request := &v1.ReportRequest{SessionId: id, Sequence: sequence, Full: sequence == 1, Desktops: a.step(sequence == 1),
			Usage: &v1.HostUsage{StoreAvailableBytes: 90 << 30}}
		if _, err := a.server.Report(ctx, request); err != nil {
			return err
		}
	}
}

// step takes every desktop one step and returns what is to be reported.
func (a *agent) step(full bool) []*v1.IncarnationReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	var reports []*v1.IncarnationReport
	for _, name := range slices.Sorted(maps.Keys(a.lives)) {
		l := a.lives[name]
		if next, message := a.next(l); next != l.status.State {
			l.become(next, message)
		}
		if full || !l.reported {
			reports = append(reports, &v1.IncarnationReport{Desktop: name, Uid: l.assignment.GetUid(), Status: proto.CloneOf(l.status)})
			l.reported = true
		}
	}
	return reports
}

func (a *agent) next(l *life) (v1.DesktopState, string) {
	state := l.status.State
	switch {
	case state == v1.DesktopState_DESKTOP_STATE_DELETED || l.assignment.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED:
		return v1.DesktopState_DESKTOP_STATE_DELETED, ""
	case state == v1.DesktopState_DESKTOP_STATE_UNSPECIFIED:
		return v1.DesktopState_DESKTOP_STATE_PREPARED, ""
	case state == v1.DesktopState_DESKTOP_STATE_PREPARED:
		return v1.DesktopState_DESKTOP_STATE_STARTING, ""
	case state == v1.DesktopState_DESKTOP_STATE_STARTING && a.broken != "":
		return v1.DesktopState_DESKTOP_STATE_FAILED, a.broken
	case state == v1.DesktopState_DESKTOP_STATE_STARTING:
		return v1.DesktopState_DESKTOP_STATE_READY, ""
	}
	return state, l.status.Message
}

func (a *agent) isSilent() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.silent
}

func (a *agent) set(change func(a *agent)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

// kill ends a desktop's VM.
func (a *agent) kill(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.lives[name]
	l.become(v1.DesktopState_DESKTOP_STATE_FAILED, "QEMU ended")
}

// running lists the desktops whose VM runs here.
func (a *agent) running() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for name, l := range a.lives {
		if l.status.State == v1.DesktopState_DESKTOP_STATE_STARTING || l.status.State == v1.DesktopState_DESKTOP_STATE_READY {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
