package hostagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "daybreak/proto/daybreak/v1"
)

// Times and limits of reports.
const (
	// debounce gathers changes that come together into one report.
	debounce      = 100 * time.Millisecond
	minPeriod     = time.Second
	maxPeriod     = time.Minute
	defaultPeriod = 10 * time.Second
	maxImages     = 1024
	maxKept       = 4096
	maxAnswers    = 4
	maxPicture    = 3 << 20
	// maxStatusBytes of statuses in a report leave room for the rest of it in the 4 MiB that the server takes.
	maxStatusBytes = 3 << 20
)

// report tells the control plane what is: at once when something changed, and at least once each period. The first report
// of a session makes the server forget what it knew of the host; what does not fit into it follows at once.
func (s *session) report(ctx context.Context) error {
	a := s.agent
	var acknowledged, sequence uint64
	full := true
	for {
		sequence++
		request, revision := a.compose(acknowledged)
		request.SessionId, request.Sequence, request.Full = s.id, sequence, full
		answer, err := s.send(ctx, request)
		if err != nil {
			return err
		}
		acknowledged, full = revision, false
		period := defaultPeriod
		if d := answer.GetNextPeriod(); d != nil {
			period = min(max(d.AsDuration(), minPeriod), maxPeriod)
		}
		if !sleepUntil(ctx, time.Now().Add(period), a.book.changed) || !sleepUntil(ctx, time.Now().Add(debounce), nil) {
			return context.Cause(ctx)
		}
		if a.capacity().GetStoreBytes() != s.storeBytes {
			return errors.New("the size of the store has changed: a new session tells the control plane")
		}
	}
}

func (s *session) send(ctx context.Context, request *v1.ReportRequest) (*v1.ReportResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := s.client.Report(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return answer, nil
}

// compose makes the report of what changed since a revision of the book.
func (a *Agent) compose(since uint64) (*v1.ReportRequest, uint64) {
	desktops, revision := a.book.since(since, maxAssignments, maxStatusBytes)
	known := a.book.knownDesktops()
	request := &v1.ReportRequest{Desktops: desktops, Unwell: cleanText(a.Unwell(), 1024)}
	inFlight, limit := a.governor.counts()
	heldBack, runs := a.governor.heldBack(), a.running(nil)
	a.inventory.mu.Lock()
	defer a.inventory.mu.Unlock()
	load := a.inventory.load
	request.Usage = &v1.HostUsage{
		StoreAvailableBytes: a.inventory.space.Available, StoreReadRate: a.inventory.space.ReadRate, MemoryAvailableMib: load.MemoryAvailableMiB,
		BootsInFlight: uint32(inFlight), BootLimit: uint32(limit), Running: runs.vms,
		RunningMemoryMib: runs.memoryMiB, HeldBack: cleanText(heldBack, 512), BuildMemoryMib: a.buildMiB(),
		PsiCpu: load.PSICPU, PsiMemory: load.PSIMemory, PsiIo: load.PSIIO,
	}
	request.Images = a.inventory.bases[:min(len(a.inventory.bases), maxImages)]
	for _, disk := range a.inventory.data {
		if !known[disk.GetDesktopUid()] && len(request.KeptDisks) < maxKept {
			request.KeptDisks = append(request.KeptDisks, disk)
		}
	}
	return request, revision
}

// Unwell says why the host is not well, for people; empty when it is.
func (a *Agent) Unwell() string {
	var reasons []string
	add := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	if frozen := a.frozen(); frozen != "" {
		add("%s", frozen)
	}
	for _, fault := range a.cfg.Platform.Faults {
		add("%s", fault)
	}
	if fault := a.trustsNobody(); fault != "" {
		add("%s", fault)
	}
	if !a.isAdopted() {
		add("the VMs of this host were not listed yet")
	}
	if fault, since := a.view.trouble(); fault != "" {
		add("the hypervisor does not answer since %s: %s", since.UTC().Format("2006-01-02 15:04:05 MST"), fault)
	}
	if fault := a.book.journalFault(); fault != "" {
		add("the journal cannot be written: %s", fault)
	}
	a.inventory.mu.Lock()
	if a.inventory.fault != "" {
		add("the store cannot be read: %s", a.inventory.fault)
	}
	a.inventory.mu.Unlock()
	if damaged := a.fetcher.unmended(); damaged != "" {
		add("%s", damaged)
	}
	if names := a.refusedNames(); len(names) > 0 {
		add("%d assignments were refused, since they are not valid or older than what this host has seen: %s", len(names), strings.Join(names[:min(len(names), 5)], ", "))
	}
	return strings.Join(reasons, "; ")
}

// answer answers questions, one at a time, until the session ends.
func (s *session) answer(ctx context.Context) error {
	for {
		var ask *v1.Ask
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ask = <-s.asks:
		}
		if err := s.answerOne(ctx, ask); err != nil {
			return err
		}
	}
}

func (s *session) answerOne(ctx context.Context, ask *v1.Ask) error {
	deadline := time.Now().Add(2 * callTimeout)
	if d := ask.GetDeadline(); d != nil && d.AsTime().Before(deadline) {
		deadline = d.AsTime()
	}
	if !time.Now().Before(deadline) {
		return nil
	}
	askCtx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	answer := &v1.AnswerRequest{SessionId: s.id, Id: ask.GetId()}
	var err error
	if ask.GetBuild() != nil {
		err = s.callBuild(ask)
	} else {
		answer.Png, err = s.agent.picture(askCtx, ask)
	}
	if err != nil {
		answer.Error = cleanText(err.Error(), 1024)
	}
	callCtx, cancelCall := context.WithTimeout(ctx, callTimeout)
	defer cancelCall()
	_, err = s.client.Answer(callCtx, answer)
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.NotFound, codes.DeadlineExceeded, codes.InvalidArgument:
		// Who asked does not wait any more: that is no fault of the session.
		s.log.Debug().Err(err).Msg("answer not wanted any more")
		return nil
	}
	return fmt.Errorf("answer: %w", err)
}

// picture answers a question for a screenshot.
func (a *Agent) picture(ctx context.Context, ask *v1.Ask) ([]byte, error) {
	question := ask.GetScreenshot()
	if question == nil {
		return nil, errors.New("this agent does not know the question: is it older than the control plane?")
	}
	life, ok := a.book.find(question.GetDesktop(), question.GetGeneration())
	if !ok {
		return nil, fmt.Errorf("take screenshot: generation %d of the desktop is not on this host", question.GetGeneration())
	}
	png, err := a.guest.Screenshot(ctx, life)
	if err != nil {
		return nil, fmt.Errorf("take screenshot: %w", err)
	}
	if len(png) > maxPicture {
		return nil, errors.New("take screenshot: the picture is larger than 3 MiB")
	}
	return slices.Clip(png), nil
}
