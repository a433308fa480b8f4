"""Does each row's state belong where the row goes on, while a training runs?"""
