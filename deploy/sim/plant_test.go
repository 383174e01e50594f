package sim

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/hostagent"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// TestCheckerFindsPlantedBugs does to a system that is well what a bug of the product would do, and wants the checker to
// say so: a checker that cannot fail proves nothing.
func TestCheckerFindsPlantedBugs(t *testing.T) {
	rows := []struct {
		name, invariant string
		plant           func(*scene)
	}{
		{"second QEMU on another host", "1", func(p *scene) { p.startElsewhere(p.life) }},
		{"life begins before the last is over", "1", func(p *scene) {
			p.change(func(d *v1.Desktop) { d.Incarnation.Generation++; d.Incarnation.Host = ""; d.Claim = nil })
		}},
		{"desktop removed while it runs", "1", func(p *scene) { p.commit(store.Delete(p.desktop)) }},
		{"life moves to another host", "1", func(p *scene) { p.moveElsewhere() }},
		{"one side of a claim is lost", "2", func(p *scene) { p.change(func(d *v1.Desktop) { d.Claim = nil }) }},
		{"user holds two desktops", "2", func(p *scene) { p.claimTwice() }},
		{"store does not compare revisions", "2", func(p *scene) { p.crowd() }},
		{"used desktop is given on", "3", func(p *scene) { p.giveOn() }},
		{"overlay of a held desktop is thrown away", "4", func(p *scene) { _ = p.witness.TrashOverlay(p.sim.ctx, p.life) }},
		{"user's VM is shut down", "4", func(p *scene) { _ = p.witness.Shutdown(p.sim.ctx, p.life) }},
		{"user's VM is destroyed", "4", func(p *scene) { _ = p.witness.Destroy(p.sim.ctx, p.life) }},
		{"data disk is thrown away", "4", func(p *scene) { _ = p.witness.TrashData(p.sim.ctx, p.life.UID) }},
		{"unpublished version is stored", "5", func(p *scene) {
			p.change(func(d *v1.Desktop) { d.Incarnation.Digest = strings.Repeat("e", 64) })
		}},
		{"unpublished version runs", "5", func(p *scene) {
			p.startAs(func(m *hostagent.Machine) { m.Base.Raw = "/fake/bases/" + strings.Repeat("e", 64) })
		}},
		{"host is promised too much", "6", func(p *scene) { p.promise(12) }},
		{"too many boots at once", "6", func(p *scene) { p.bootMany(maxBoots + 1) }},
		{"version that was withdrawn begins", "5", func(p *scene) {
			p.sim.publish(sound)
			p.sim.withdraw(2)
			time.Sleep(2 * slowGrace)
			p.newLife(p.idle(), 2)
		}},
		{"user's VM is suspended who came back", "9", func(p *scene) {
			p.sim.truth.present[p.life] = time.Now()
			time.Sleep(2 * lookToAct)
			_ = p.witness.Suspend(p.sim.ctx, p.life, "memory")
		}},
		{"user's VM is ended who came back", "9", func(p *scene) {
			p.sim.truth.present[p.life] = time.Now().Add(-time.Minute)
			p.reclaim(time.Now())
			_ = p.witness.Shutdown(p.sim.ctx, p.life)
		}},
		{"desktop is taken back before its user was told to", "9", func(p *scene) { p.reclaim(time.Now().Add(time.Minute)) }},
		{"desktop is moved while nothing moves", "7", func(p *scene) { p.retire(p.idle()) }},
		{"pool falls under min_ready", "7", func(p *scene) { p.moving(func(o *v1.Pool) { o.Spec.MinReady, o.Spec.MaxUnavailable = 5, 5 }) }},
		{"too many out of service", "7", func(p *scene) { p.moving(func(o *v1.Pool) { o.Spec.MinReady, o.Spec.MaxUnavailable = 0, 1 }) }},
		{"user's desktop is moved unannounced", "7", func(p *scene) { p.retire(p.desktop) }},
		{"user's desktop is moved too soon", "7", func(p *scene) { p.announceAndRetire() }},
		{"nobody is told of a restart", "7", func(p *scene) {
			p.change(func(d *v1.Desktop) { d.Claim.RestartAt = timestamppb.Now() })
		}},
		{"more begin than are admitted", "7", func(p *scene) { p.staged(); p.newLife(p.idle(), 2) }},
		{"rollback is taken back", "7", func(p *scene) {
			p.commit(store.Create(&v1.Rollout{Meta: &v1.Meta{Name: "lgwan-99"}, Spec: &v1.RolloutSpec{Pool: "lgwan", Rollback: true},
				Status: &v1.RolloutStatus{Phase: v1.RolloutPhase_ROLLOUT_PHASE_ROLLED_BACK}}))
		}},
		{"broken version is given to all", "7", func(p *scene) {
			p.sim.publish(neverReady)
			p.sim.history.failures["lgwan"] = map[uint32]int{2: 7}
			p.sim.checkExposure()
		}},
		{"NIC in another zone", "8", func(p *scene) { p.startAs(func(m *hostagent.Machine) { m.Bridge = "br-juki" }) }},
		{"desktop in another zone", "8", func(p *scene) { p.change(func(d *v1.Desktop) { d.Spec.Zone = "juki" }) }},
		{"VM is lost and nobody says so", "10", func(p *scene) { p.node.host.Kill(p.life) }},
		{"pool does not come to its release", "10", func(p *scene) {
			idle := p.idle()
			p.commit(store.Update(with(idle, func(d *v1.Desktop) { d.Incarnation.Version = 7 })))
			p.sim.settle()
		}},
		{"host never comes back", "10", func(p *scene) {
			p.node.link.set(networkCut)
			time.Sleep(time.Minute)
			p.sim.settle()
		}},
		{"acknowledged claim is forgotten", "11", func(p *scene) { p.forget() }},
		{"state goes backward", "state", func(p *scene) {
			p.change(func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_PREPARING })
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			inSim(t, 1, 6, func(s *sim) {
				if !s.settle() {
					s.report()
					return
				}
				p := newScene(s)
				if !s.check() {
					s.report() // the scene itself is sound
					return
				}
				row.plant(p)
				time.Sleep(time.Second)
				s.check()
				for _, found := range s.broken() {
					if strings.Contains(found, "invariant "+row.invariant+":") {
						t.Log(found)
						return
					}
				}
				t.Errorf("not found; the checker says %q", s.broken())
			})
		})
	}
}

// scene is a user at work on a desktop, where a bug is planted.
type scene struct {
	sim     *sim
	user    *user
	desktop *v1.Desktop
	life    hostagent.Life
	node    *node
	witness *witness
}

func newScene(s *sim) *scene {
	p := &scene{sim: s, user: s.users[0]}
	p.user.claim(s.planes[0], false)
	time.Sleep(time.Second)
	if p.user.told != toldHeld {
		s.t.Fatalf("%s has no desktop", p.user.name)
	}
	p.desktop = s.history.desktop(p.user.held.GetMeta().GetName())
	p.life = hostagent.Life{Desktop: p.desktop.GetMeta().GetName(), UID: p.desktop.GetMeta().GetUid(), Generation: p.desktop.GetIncarnation().GetGeneration()}
	for _, n := range s.nodes {
		if n.name == p.desktop.GetIncarnation().GetHost() {
			p.node, p.witness = n, &witness{Host: n.host, node: n}
		}
	}
	return p
}

// commit writes past owners and leaders.
func (p *scene) commit(ops ...store.Op) {
	if _, err := p.sim.backend.Memory.Commit(p.sim.ctx, store.Guard{}, ops); err != nil {
		p.sim.t.Fatal(err)
	}
}

// idle is a ready desktop of the user's pool that nobody holds.
func (p *scene) idle() *v1.Desktop {
	p.sim.history.mu.Lock()
	defer p.sim.history.mu.Unlock()
	for _, d := range p.sim.history.desktops {
		if d.GetSpec().GetPool() == p.user.pool && p.sim.history.standing(d) == free {
			return d
		}
	}
	p.sim.t.Fatal("no desktop is free")
	return nil
}

func with(d *v1.Desktop, change func(*v1.Desktop)) *v1.Desktop {
	d = proto.CloneOf(d)
	change(d)
	return d
}

func (p *scene) retire(d *v1.Desktop) {
	p.commit(store.Update(with(d, func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED })))
	time.Sleep(50 * time.Millisecond)
}

// reclaim ends the user's life for want of use, of which they were told that it would be at a time.
func (p *scene) reclaim(at time.Time) {
	p.commit(store.Update(with(p.desktop, func(d *v1.Desktop) {
		d.Claim.Reclaim = &v1.Reclaim{Since: timestamppb.New(at.Add(-5 * time.Minute)), ActAt: timestamppb.New(at), Action: v1.IdleAction_IDLE_ACTION_RELEASE, Acting: true}
		d.Incarnation.Desired, d.Incarnation.UnlessUsedSince = v1.DesiredState_DESIRED_STATE_DELETED, timestamppb.Now()
	})))
	time.Sleep(50 * time.Millisecond)
}

// newLife begins one, whatever is left of the last.
func (p *scene) newLife(d *v1.Desktop, version uint32) {
	p.commit(store.Update(with(d, func(d *v1.Desktop) {
		d.Incarnation.Generation, d.Incarnation.Host, d.Incarnation.Version = d.Incarnation.Generation+1, "", version
	})))
}

// moving takes two ready desktops away while their pool is paused in the middle of a move.
func (p *scene) moving(change func(*v1.Pool)) {
	p.staged()
	for range 2 {
		asAdmin(p.sim, p.user.pool, change)
		_, err := store.Modify(p.sim.ctx, store.Open(p.sim.backend.Memory, store.WriterRollout), p.user.pool, func(o *v1.Pool) error {
			o.Release.Moving = true
			return nil
		})
		if err != nil {
			p.sim.t.Fatal(err)
		}
		p.retire(p.idle())
	}
}

// announceAndRetire tells the user of a restart and does not wait.
func (p *scene) announceAndRetire() {
	told := with(p.desktop, func(d *v1.Desktop) {
		d.Claim.RestartAt, d.Incarnation.Notice = timestamppb.Now(), &v1.Notice{Id: "n", Text: "now"}
	})
	p.sim.backend.SetGuard(store.Guard{Key: "leader", Revision: -1}) // nobody takes it back
	p.commit(store.Update(told))
	time.Sleep(time.Second)
	p.retire(p.sim.history.desktop(p.life.Desktop))
}

// staged brings another version, of which no desktop may have a life yet.
func (p *scene) staged() {
	p.sim.publish(sound)
	for p.sim.history.activeRollout(p.user.pool) == nil {
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *scene) changed(change func(*v1.Desktop)) store.Op {
	d := proto.CloneOf(p.desktop)
	change(d)
	return store.Update(d)
}

func (p *scene) change(change func(*v1.Desktop)) { p.commit(p.changed(change)) }

// claim returns the stored claim of the user.
func (p *scene) claim() *v1.Claim {
	p.sim.history.mu.Lock()
	defer p.sim.history.mu.Unlock()
	for _, c := range p.sim.history.claims {
		if c.GetUser() == p.user.name {
			return c
		}
	}
	return nil
}

func (p *scene) forget() {
	p.commit(p.changed(func(d *v1.Desktop) { d.Claim = nil }), store.Delete(p.claim()))
}

func (p *scene) giveOn() {
	next := proto.CloneOf(p.claim())
	next.Meta = &v1.Meta{Name: "stolen"}
	next.User = "somebody-else"
	p.commit(p.changed(func(d *v1.Desktop) { d.Claim.User = "somebody-else" }), store.Delete(p.claim()), store.Create(next))
}

func (p *scene) claimTwice() {
	for name, d := range p.sim.history.desktops {
		if name != p.life.Desktop && d.GetSpec().GetPool() == p.user.pool {
			second := proto.CloneOf(p.claim())
			second.Meta = &v1.Meta{Name: "second"}
			second.Desktop = name
			other := proto.CloneOf(d)
			other.Claim = p.desktop.GetClaim()
			p.commit(store.Update(other), store.Create(second))
			return
		}
	}
}

// crowd lets everybody claim at once on a store that has forgotten its one promise, again and again.
func (p *scene) crowd() {
	p.sim.backend.mu.Lock()
	p.sim.backend.careless = true
	p.sim.backend.mu.Unlock()
	for i := range 60 {
		for _, u := range p.sim.users {
			u.step(i%20 > 10)
		}
		time.Sleep(5 * time.Second)
	}
}

func (p *scene) machine() hostagent.Machine {
	p.sim.truth.mu.Lock()
	defer p.sim.truth.mu.Unlock()
	return p.sim.truth.machines[p.life]
}

// startElsewhere is what happens when a fence is missing: the same life on another host.
func (p *scene) startElsewhere(life hostagent.Life) {
	for _, n := range p.sim.nodes {
		if n != p.node {
			p.boot(n, life, p.machine().VMUUID)
			return
		}
	}
}

// moveElsewhere gives the life to another host than the one it runs on, whichever that is.
func (p *scene) moveElsewhere() {
	for _, n := range p.sim.nodes {
		if n != p.node {
			p.change(func(d *v1.Desktop) { d.Incarnation.Host = n.name })
			return
		}
	}
}

// boot starts a VM behind the agent's back.
func (p *scene) boot(n *node, life hostagent.Life, vmUUID string) {
	ctx := context.Background()
	digest := p.desktop.GetIncarnation().GetDigest()
	n.host.AddBase(digest, 1<<20)
	_, overlay, err := n.host.CreateOverlay(ctx, life, digest, 1<<20)
	if err != nil {
		p.sim.t.Fatal(err)
	}
	m := p.machine()
	m.Life, m.VMUUID, m.Overlay = life, vmUUID, overlay
	if err := (&witness{Host: n.host, node: n}).Start(ctx, m); err != nil {
		p.sim.t.Fatal(err)
	}
}

// startAs has the agent ask again for the VM that runs, with another machine.
func (p *scene) startAs(change func(*hostagent.Machine)) {
	m := p.machine()
	change(&m)
	if err := p.witness.Start(p.sim.ctx, m); err != nil {
		p.sim.t.Fatal(err)
	}
}

func (p *scene) bootMany(n int) {
	for i := range n {
		life := hostagent.Life{Desktop: "lgwan-" + strings.Repeat("9", i+2), UID: uuid.NewString(), Generation: 1}
		p.boot(p.node, life, uuid.NewString())
	}
}

// promise places desktops on a host that has no room for them.
func (p *scene) promise(n int) {
	for i := range n {
		d := proto.CloneOf(p.desktop)
		d.Meta = &v1.Meta{Name: "tight-" + strings.Repeat("9", i+2)}
		d.Spec.Pool, d.Spec.Zone, d.Claim, d.Status = "tight", "tight", nil, nil
		d.Incarnation.Shape = &v1.Shape{Vcpus: 1, MemoryMib: 2048}
		d.Incarnation.UsedBy = ""
		p.commit(store.Create(d))
	}
	p.sim.check() // before the pool takes them down again
}
