leader: shipped record LSN=1, waiting for quorum \(Q=2\)
follower-1: ack LSN=1 status=OK
follower-2: ack LSN=1 status=OK
leader: quorum reached for LSN=1 \(2/2 acks\)
leader: shipped record LSN=2, waiting for quorum \(Q=2\)
follower-1: ack LSN=2 status=OK
follower-2: ack LSN=2 status=OK
leader: quorum reached for LSN=2 \(2/2 acks\)
leader: shipped record LSN=3, waiting for quorum \(Q=2\)
follower-1: ack LSN=3 status=OK
follower-2: ack LSN=3 status=OK
leader: quorum reached for LSN=3 \(2/2 acks\)
leader: shipped record LSN=4, waiting for quorum \(Q=2\)
follower-1: ack LSN=4 status=OK
follower-2: ack LSN=4 status=OK
leader: quorum reached for LSN=4 \(2/2 acks\)
leader: shipped record LSN=5, waiting for quorum \(Q=2\)
follower-1: ack LSN=5 status=OK
follower-2: ack LSN=5 status=OK
leader: quorum reached for LSN=5 \(2/2 acks\)
5/5 records committed with quorum
late ack: follower-2 acked after 500 ms, the write took [0-9]+ ms ✓
