package fakecluster

import (
	"sort"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

func (c *Cluster) commit(r *Request, request *wire.CommitRequest) {
	g := c.groups[request.Group]
	if g == nil {
		g = newGroup()
		c.groups[request.Group] = g
	}
	reply := &wire.CommitReply{}
	for _, offset := range request.Offsets {
		result := wire.PartitionResult{Partition: offset.Partition}
		if owner, owned := g.owners[offset.Partition]; owned && owner != request.Member || !owned && request.Member != 0 {
			result.Error = errorcode.NotAssigned
		} else {
			g.commits[offset.Partition] = offset
		}
		reply.Partitions = append(reply.Partitions, result)
	}
	r.Reply(reply, nil)
}

func (c *Cluster) groupOffsets(r *Request, request *wire.GroupOffsetsRequest) {
	g := c.groups[request.Group]
	if g == nil {
		r.Refuse(errorcode.UnknownGroup, wire.ErrorReply{})
		return
	}
	reply := &wire.GroupOffsetsReply{}
	for _, commit := range g.commits {
		reply.Offsets = append(reply.Offsets, commit)
	}
	r.Reply(reply, nil)
}

func (c *Cluster) listGroups(r *Request, request *wire.GroupListRequest) {
	reply := &wire.GroupListReply{}
	for i, asked := range request.Ranges {
		listed := wire.ListedRange{Range: asked.Range, Error: c.epochError(r, asked.Epoch)}
		// All of them lie in the first range here.
		for name, g := range c.groups {
			if i == 0 && listed.Error == errorcode.None {
				listed.Groups = append(listed.Groups, wire.ListedGroup{Group: name, State: g.state(), Members: uint32(len(g.members))})
			}
		}
		reply.Ranges = append(reply.Ranges, listed)
	}
	r.Reply(reply, nil)
}

func (g *group) state() wire.GroupState {
	if len(g.members) == 0 {
		return wire.GroupEmpty
	}
	return wire.GroupStable
}

func (c *Cluster) describeOrDelete(r *Request, request *wire.GroupRequest) {
	g := c.groups[request.Group]
	if g == nil {
		r.Refuse(errorcode.UnknownGroup, wire.ErrorReply{})
		return
	}
	if r.Header.API == wire.APIGroupDelete {
		if len(g.members) > 0 {
			r.Refuse(errorcode.GroupNotEmpty, wire.ErrorReply{})
			return
		}
		delete(c.groups, request.Group)
		r.Reply(nothing{}, nil)
		return
	}
	reply := &wire.GroupDescription{Generation: g.generation, State: g.state()}
	target := g.target(c)
	for id, m := range g.members {
		described := wire.DescribedMember{Member: id, Instance: m.instance, ClientName: m.clientName}
		for _, subscribed := range m.subscribed {
			described.Topics = append(described.Topics, subscribed.Topic)
		}
		for partition, owner := range g.owners {
			if owner == id {
				described.Owned = append(described.Owned, partition)
			}
		}
		for partition, owner := range target {
			if owner == id {
				described.Target = append(described.Target, partition)
			}
		}
		reply.Members = append(reply.Members, described)
	}
	sort.Slice(reply.Members, func(i, j int) bool { return reply.Members[i].Member < reply.Members[j].Member })
	r.Reply(reply, nil)
}
