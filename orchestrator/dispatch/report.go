package dispatch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// ackLimit bounds how long a report waits until its statuses are durable. Then the agent sends them again.
const ackLimit = 15 * time.Second

// Report implements v1.AgentServiceServer. It is answered once the statuses in it are durable: the agent never sends
// again what was acknowledged.
func (s *Server) Report(ctx context.Context, req *v1.ReportRequest) (*v1.ReportResponse, error) {
	response, err := s.report(ctx, req)
	result := "acknowledged"
	switch status.Code(err) {
	case codes.OK:
	case codes.InvalidArgument, codes.FailedPrecondition, codes.Unauthenticated, codes.PermissionDenied:
		result = "refused"
	default:
		result = "failed"
	}
	s.metrics.reports.WithLabelValues(result).Inc()
	return response, err
}

func (s *Server) report(ctx context.Context, req *v1.ReportRequest) (*v1.ReportResponse, error) {
	host, t, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkReport(req); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "report of host %s: %v", host, err)
	}
	session, written, err := t.accept(host, req, time.Now())
	if err != nil {
		return nil, err
	}
	defer t.answered(session)
	if err := durable(ctx, written); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return &v1.ReportResponse{NextPeriod: durationpb.New(t.nextPeriod())}, nil
}

// durable waits until a batch is written.
func durable(ctx context.Context, written *batch) error {
	if written == nil {
		return nil
	}
	limit := time.NewTimer(ackLimit)
	defer limit.Stop()
	select {
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-limit.C:
		return status.Errorf(codes.Unavailable, "statuses were not stored within %v: report them again", ackLimit)
	case <-written.done:
	}
	if written.err != nil {
		return status.Errorf(codes.Unavailable, "statuses were not stored: %v", written.err)
	}
	return nil
}

// checkReport cleans what guests said and validates the rest.
func checkReport(req *v1.ReportRequest) error {
	for _, r := range req.GetDesktops() {
		if r.GetStatus() != nil {
			clean(r.GetStatus())
		}
	}
	if err := protovalidate.Validate(req); err != nil {
		return err
	}
	for _, r := range req.GetDesktops() {
		if !reportable(r.GetStatus().GetState()) {
			return fmt.Errorf("desktop %q: %v is not a state that an agent reports", r.GetDesktop(), r.GetStatus().GetState())
		}
	}
	return nil
}

// accept takes a report in and returns the batch that makes it durable, nil when it needs none.
func (t *term) accept(host string, req *v1.ReportRequest, now time.Time) (*session, *batch, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed != nil {
		return nil, nil, t.closed
	}
	p, err := t.speaking(host, req)
	if err != nil {
		return nil, nil, err
	}
	s := p.session
	s.sequence, s.full, s.busy = req.GetSequence(), true, true
	p.heard = now
	p.facts.report, p.spoke = withoutDesktops(req), true
	if req.GetFull() {
		clear(p.orphans)
	}
	view := t.mirror.View()
	var written *batch
	for _, r := range req.GetDesktops() {
		if t.sort(p, view, r) {
			written = t.open
		}
	}
	t.settle(p, view)
	t.sync(p, view, now)
	return s, written, nil
}

// speaking finds the host's session and checks that this report is its next. The caller holds mu.
func (t *term) speaking(host string, req *v1.ReportRequest) (*peer, error) {
	p, ok := t.peers[host]
	switch {
	case !ok || p.session == nil || p.session.id != req.GetSessionId():
		return nil, status.Errorf(codes.FailedPrecondition, "session %s is not the present one of host %s: begin a new one", req.GetSessionId(), host)
	case p.session.busy:
		return nil, status.Errorf(codes.FailedPrecondition, "host %s has another report under way", host)
	case req.GetSequence() <= p.session.sequence && p.session.full:
		return nil, status.Errorf(codes.FailedPrecondition, "report %d of host %s is not newer than %d", req.GetSequence(), host, p.session.sequence)
	case !p.session.full && !req.GetFull():
		return nil, status.Errorf(codes.FailedPrecondition, "the first report of a session must be full (host %s)", host)
	}
	return p, nil
}

// answered lets the next report of a session come.
func (t *term) answered(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.busy = false
}

// sort puts one reported life where it belongs: a status of the host's own desktop, an orphan, or nothing. A host
// cannot speak of another host's desktop. It says whether there is something to write. The caller holds mu.
func (t *term) sort(p *peer, view *store.View, r *v1.IncarnationReport) bool {
	key, state := lifeOf(r), r.GetStatus().GetState()
	_, known := p.orphans[key]
	d, ok := store.Lookup[*v1.Desktop](view, key.desktop)
	switch {
	case ok && names(d, p.name, key.uid, key.generation):
		delete(p.orphans, key)
		t.enqueue(key.desktop, change{host: p.name, uid: key.uid, status: r.GetStatus()})
		return true
	case state == v1.DesktopState_DESKTOP_STATE_DELETED:
		delete(p.orphans, key)
	case known || r.GetOrphan() && len(p.orphans) < maxOrphans:
		p.orphans[key] = state
	default:
		t.metrics.ignored.WithLabelValues("foreign").Inc()
	}
	return false
}

// settle decides anew about a host's orphans. The caller holds mu.
func (t *term) settle(p *peer, view *store.View) {
	erase, unknown := judgeOrphans(view, p.name, t.frozen, p.erase, p.orphans)
	p.unknown = unknown
	if p.session == nil || maps.EqualFunc(erase, p.erase, sameErasure) {
		return
	}
	p.session.note(func(n *news) {
		for o := range erase {
			n.desktops[o.desktop] = struct{}{}
		}
		for o := range p.erase {
			n.desktops[o.desktop] = struct{}{}
		}
	})
	p.erase = erase
}

func sameErasure(a, b *v1.Assignment) bool {
	return proto.Equal(a, b)
}

// withoutDesktops is what is remembered of a report.
func withoutDesktops(req *v1.ReportRequest) *v1.ReportRequest {
	kept := slices.Clone(req.GetKeptDisks())
	slices.SortFunc(kept, func(a, b *v1.KeptDisk) int { return strings.Compare(a.GetDesktopUid(), b.GetDesktopUid()) })
	return &v1.ReportRequest{Usage: req.GetUsage(), Images: req.GetImages(), KeptDisks: kept, Unwell: req.GetUnwell()}
}
