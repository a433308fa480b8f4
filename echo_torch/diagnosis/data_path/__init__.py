"""Does each row of a loader go on where it stopped, and has it read what it is asked?"""
