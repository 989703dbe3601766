"""What runs in Flotilla's pods beside the engine: agents, gateway, router agent, retriever, index builds."""
