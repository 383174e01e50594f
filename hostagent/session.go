package hostagent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"buf.build/go/protovalidate"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	v1 "daybreak/proto/daybreak/v1"
)

// Limits and times of a session.
const (
	// maxMessage is the largest message the agent takes: all assignments of a big host at once.
	maxMessage = 16 << 20
	// maxAssignments a host may have, by the message's rule.
	maxAssignments = 8192
	maxWanted      = 256
	helloTimeout   = 30 * time.Second
	callTimeout    = 15 * time.Second
	maxSessionWait = 30 * time.Second
	// settled is how long a session must last before the next one is tried without a pause.
	settled = time.Minute
)

// session is one round with the control plane. Any error ends it as a whole, and a new one is made: nothing is mended.
type session struct {
	agent  *Agent
	id     string
	server string
	client v1.AgentServiceClient
	log    zerolog.Logger
	// sequence that the assignments have come to.
	sequence uint64
	asks     chan *v1.Ask
	// storeBytes is the size of the store that the control plane was told.
	storeBytes uint64
}

var errNoAssignments = errors.New("the server sent no assignments in time")

// sessions keeps one session with one of the servers for as long as the agent runs.
func (a *Agent) sessions(ctx context.Context) error {
	failures := 0
	for attempt := 0; ; attempt++ {
		server := a.cfg.Servers[attempt%len(a.cfg.Servers)]
		began := time.Now()
		err := a.session(ctx, server)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > settled {
			failures = 0
		}
		failures++
		a.log.Warn().Err(err).Str("server", server).Msg("session ended")
		// Every server is tried once before the first pause grows.
		rounds := (failures - 1) / len(a.cfg.Servers)
		pause := time.Duration(a.cfg.Rand() * float64(min(500*time.Millisecond<<min(rounds, 8), maxSessionWait)))
		if !sleepUntil(ctx, time.Now().Add(pause), nil) {
			return ctx.Err()
		}
	}
}

// session runs one session until something goes wrong, and says what.
func (a *Agent) session(ctx context.Context, server string) error {
	conn, err := a.cfg.Dial(server)
	if err != nil {
		return fmt.Errorf("dial %s: %w", server, err)
	}
	defer func() { _ = conn.Close() }()
	s := &session{
		agent: a, id: uuid.NewString(), server: server, client: v1.NewAgentServiceClient(conn), asks: make(chan *v1.Ask, 64),
		log: a.log.With().Str("server", server).Logger(),
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	group, ctx := errgroup.WithContext(ctx)
	// The first message comes at once: who does not send it is not a control plane that leads.
	late := time.AfterFunc(helloTimeout, func() { cancel(errNoAssignments) })
	defer late.Stop()
	hello := a.hello(s.id)
	s.storeBytes = hello.GetCapacity().GetStoreBytes()
	stream, err := s.client.Watch(ctx, hello, grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	if err := s.receive(stream, true); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("open session: %w", cause)
		}
		return err
	}
	late.Stop()
	s.log.Info().Str("session", s.id).Msg("session begun")
	a.metrics.sessions.Inc()
	a.source.use(s.client)
	a.setSession(true)
	defer func() {
		a.source.use(nil)
		a.setSession(false)
	}()
	group.Go(func() error {
		for {
			if err := s.receive(stream, false); err != nil {
				return err
			}
		}
	})
	group.Go(func() error { return s.report(ctx) })
	for range maxAnswers {
		group.Go(func() error { return s.answer(ctx) })
	}
	return group.Wait()
}

// hello says who the agent is.
func (a *Agent) hello(id string) *v1.WatchAssignmentsRequest {
	return &v1.WatchAssignmentsRequest{
		SessionId: id, AgentVersion: cleanText(a.cfg.Version, 64), BootId: cleanText(a.bootID, 64), Capacity: a.capacity(),
		Zones: slices.Sorted(maps.Keys(a.cfg.Zones)), ClusterEpoch: a.book.seenEpoch(), PeerAddress: cleanText(a.cfg.Peers.Address, 262),
	}
}

// receive takes in one message.
func (s *session) receive(stream grpc.ServerStreamingClient[v1.Assignments], first bool) error {
	message, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("receive assignments: %w", err)
	}
	switch {
	case first && !message.GetComplete():
		return errors.New("receive assignments: the first message is not complete")
	case !message.GetComplete() && message.GetAppliesTo() != s.sequence:
		return fmt.Errorf("receive assignments: a gap: the message applies to %d, seen was %d", message.GetAppliesTo(), s.sequence)
	case len(message.GetSet()) > maxAssignments, len(message.GetDrop()) > maxAssignments, len(message.GetAsks()) > cap(s.asks),
		len(message.GetWantedImages().GetImages()) > maxWanted:
		return errors.New("receive assignments: the message holds more than its rules allow")
	}
	s.sequence = message.GetResultsIn()
	for _, ask := range message.GetAsks() {
		select {
		case s.asks <- ask:
		default:
			s.log.Warn().Str("ask", cleanText(ask.GetId(), 64)).Msg("too many questions at once: one not answered")
		}
	}
	return s.agent.obey(message)
}

// obey takes in what a message says. Parts that are not valid are refused one by one, so that one of them does not keep
// the others from the host.
func (a *Agent) obey(message *v1.Assignments) error {
	if a.book.readOnly() {
		return nil
	}
	o := orders{complete: message.GetComplete(), drop: message.GetDrop(), epoch: message.GetClusterEpoch(), bootID: a.bootID,
		reserved: message.GetReservedMemoryMib()}
	var refusals []string
	for _, assignment := range message.GetSet() {
		if err := protovalidate.Validate(assignment); err != nil {
			refusals = append(refusals, assignment.GetDesktop())
			a.log.Error().Err(err).Str("desktop", cleanText(assignment.GetDesktop(), 63)).Msg("assignment refused: it is not valid")
			continue
		}
		o.set = append(o.set, assignment)
	}
	if a.frozen() != "" && !o.complete && o.epoch >= a.book.seenEpoch() {
		return errors.New("take in assignments: the epoch has changed, a complete set is needed")
	}
	touched, old, err := a.book.apply(time.Now(), o)
	if errors.Is(err, errOldEpoch) {
		if a.frozen() == "" {
			a.log.Error().Err(err).Msg("assignments refused; this host only looks until the control plane is as new as what it has seen")
		}
		a.freeze(fmt.Sprintf("read-only: %v", err))
		return nil
	}
	if err != nil {
		return fmt.Errorf("take in assignments: %w", err)
	}
	for _, assignment := range old {
		refusals = append(refusals, assignment.GetDesktop())
		a.log.Error().Str("desktop", assignment.GetDesktop()).Int64("generation", assignment.GetIncarnation().GetGeneration()).Msg("assignment refused: this host has seen a higher generation")
	}
	a.metrics.refused.Add(float64(len(refusals)))
	a.settleRefusals(o, refusals)
	a.freeze("")
	a.hold(message.GetWantedImages())
	a.governor.nudge()
	for uid := range touched {
		a.reassign(uid)
	}
	return nil
}

// hold fetches the versions that the host shall have ahead of their use. A message without them changes nothing.
func (a *Agent) hold(wanted *v1.WantedImages) {
	if wanted == nil {
		return
	}
	var digests []string
	for _, image := range wanted.GetImages() {
		err := protovalidate.Validate(image)
		if err == nil {
			err = a.checkImage(image)
		}
		if err != nil {
			a.log.Error().Err(err).Str("image", cleanText(image.GetImage(), 63)).Msg("image not fetched ahead")
			continue
		}
		digests = append(digests, image.GetDigest())
	}
	a.fetcher.want(digests)
}
