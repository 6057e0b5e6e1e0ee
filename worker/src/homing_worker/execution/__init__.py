"""Work in flight: lanes take it from queues, runs make its attempts, pools have the instances."""
